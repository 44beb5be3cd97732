"""One setting, the host, moves the REST API, the MCP server and the token endpoint together.

The judge is a proxy of the environment: what a client asks it to connect to is where the client
would send the key, and it answers nothing.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from click.testing import CliRunner, Result

from octogen_dagster import OctogenClient, OctogenControlPlaneResource, OctogenResource
from octogen_dagster.api.retry import RetryPolicy
from octogen_dagster.cli.main import main
from octogen_dagster.doctor.checks import diagnose
from octogen_dagster.errors import OctogenConnectionError, OctogenError
from tests.api.servers import KEY, POLL_SECONDS, RawServer, Received, http
from tests.promises.yaml.yaml_projects import LINKED, load

REFRESH_TOKEN = "a-refresh-token-that-is-secret"
PRINCIPAL = "serviceAccount:reader@my-project.iam.gserviceaccount.com"
HOST = "storerouter.ai"


class Proxy(RawServer):
    """A proxy that notes what it is asked to connect to and refuses it."""

    def __init__(self) -> None:
        self.is_asked = threading.Event()
        super().__init__(self._refuse)

    def _refuse(self, _: Received) -> list[bytes]:
        self.is_asked.set()
        return http(502)

    @property
    def targets(self) -> set[str]:
        return {each.target for each in self.received}


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Proxy]:
    for name in list(os.environ):
        if name.lower().endswith("_proxy") or name.startswith("OCTOGEN_"):
            monkeypatch.delenv(name)
    once = RetryPolicy(attempts=1)
    monkeypatch.setattr("octogen_dagster.control_plane.tokens.DEFAULT_RETRY", once)
    with Proxy() as running:
        monkeypatch.setenv("HTTPS_PROXY", running.origin)
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.setenv("OCTOGEN_PLATFORM_API_KEY", KEY)
        monkeypatch.setenv("OCTOGEN_MCP_CLIENT_ID", "client")
        yield running
    assert KEY not in str(running.received)
    assert REFRESH_TOKEN not in str(running.received)


def octogen(**settings: Any) -> OctogenResource:
    return OctogenResource(attempts=1, deadline=60.0, **settings)


def command(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


def ask(resource: OctogenControlPlaneResource) -> None:
    with resource.control_plane() as control_plane:
        control_plane.listings()


def with_token(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An access token is used at the MCP server, a refresh token at the token endpoint first."""
    monkeypatch.setenv(f"OCTOGEN_MCP_{kind}_TOKEN", REFRESH_TOKEN)


def test_the_variable_moves_the_api(proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OCTOGEN_HOST", HOST)
    with pytest.raises(OctogenConnectionError):
        octogen().list_catalogs()
    assert proxy.targets == {"api.storerouter.ai:443"}


def test_a_field_moves_the_api_in_a_run(proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    @dg.asset
    def catalogs(octogen: OctogenResource) -> None:
        with pytest.raises(OctogenConnectionError):
            octogen.list_catalogs()

    monkeypatch.setenv("OCTOGEN_HOST", "other.example")
    monkeypatch.setenv("MY_HOST", HOST)
    for host in (HOST, dg.EnvVar("MY_HOST")):
        proxy.received.clear()
        resources = {"octogen": octogen(host=host)}
        assert dg.materialize([catalogs], resources=resources).success
        assert proxy.targets == {"api.storerouter.ai:443"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "target"),
    [
        (("estimate", "--catalog", "acme"), "api.storerouter.ai:443"),
        (("login", "--no-open", "--port", "0"), "mcp.storerouter.ai:443"),
        (
            ("bq", "autosubscribe", "--project", "my-project", "--principal", PRINCIPAL),
            "mcp.storerouter.ai:443",
        ),
    ],
)
def test_it_moves_the_commands(
    proxy: Proxy, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], target: str
) -> None:
    with_token("ACCESS", monkeypatch)
    monkeypatch.delenv("OCTOGEN_MCP_CLIENT_ID")
    monkeypatch.setenv("OCTOGEN_HOST", HOST)
    program = "from octogen_dagster.cli.main import main; main()"
    with subprocess.Popen([sys.executable, "-c", program, *arguments]) as running:
        assert proxy.is_asked.wait(POLL_SECONDS)
        running.terminate()  # it retries for minutes
    assert proxy.targets == {target}


def test_an_address_that_is_named_wins(proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OCTOGEN_HOST", HOST)
    with_token("REFRESH", monkeypatch)
    monkeypatch.setenv("OCTOGEN_BASE_URL", "https://proxy.example/v1")
    monkeypatch.setenv("OCTOGEN_MCP_URL", "https://mcp.example/mcp/")
    monkeypatch.setenv("OCTOGEN_MCP_TOKEN_ENDPOINT", "https://tokens.example/oauth2/token")
    with pytest.raises(OctogenConnectionError):
        octogen(host=HOST).list_catalogs()
    with pytest.raises(OctogenError):
        ask(OctogenControlPlaneResource(principal=PRINCIPAL, host=HOST))
    assert proxy.targets == {"proxy.example:443", "tokens.example:443"}
    monkeypatch.delenv("OCTOGEN_MCP_REFRESH_TOKEN")
    with_token("ACCESS", monkeypatch)
    with pytest.raises(OctogenError):
        ask(OctogenControlPlaneResource(principal=PRINCIPAL, host=HOST))
    with pytest.raises(OctogenConnectionError):
        octogen(host=HOST, base_url="https://own.example/v1").list_catalogs()
    more = {"mcp.example:443", "own.example:443"}
    assert proxy.targets == {"proxy.example:443", "tokens.example:443"} | more


@pytest.mark.parametrize("host", ["https://storerouter.ai", f"storerouter.ai {KEY}"])
def test_what_is_no_host_is_refused_with_the_way_to_write_it(
    proxy: Proxy, monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    monkeypatch.setenv("OCTOGEN_HOST", host)
    with pytest.raises(ValueError, match=r"^OCTOGEN_HOST '.*(Pass only|Remove the prefix)"):
        OctogenClient()
    told = command("estimate", "--catalog", "acme")
    assert told.exit_code == 2
    assert told.stderr.startswith("Error: OCTOGEN_HOST '")
    assert KEY not in told.output
    assert not proxy.targets


@pytest.mark.slow
def test_the_doctor_says_which_host_is_used_and_where_it_comes_from(
    proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_token("ACCESS", monkeypatch)

    def told(host: str | None = None) -> list[str]:
        diagnosis = diagnose(
            octogen=octogen(host=host),
            control_plane=OctogenControlPlaneResource(principal=PRINCIPAL, host=host),
        )
        return [each.message for each in diagnosis.findings if each.subject.endswith(" host")]

    assert told() == [
        "https://api.octogen.ai/v1 (the default).",
        "https://mcp.octogen.ai/mcp/ (the default); token endpoint: "
        "https://auth.octogen.ai/oauth2/token (the default).",
    ]
    monkeypatch.setenv("OCTOGEN_HOST", HOST)
    assert told() == [
        "https://api.storerouter.ai/v1 (OCTOGEN_HOST).",
        "https://mcp.storerouter.ai/mcp/ (OCTOGEN_HOST); token endpoint: "
        "https://auth.storerouter.ai/oauth2/token (OCTOGEN_HOST).",
    ]
    assert told("other.example") == [
        "https://api.other.example/v1 (host of the resource).",
        "https://mcp.other.example/mcp/ (host of the resource); token endpoint: "
        "https://auth.other.example/oauth2/token (host of the resource).",
    ]
    monkeypatch.setenv("OCTOGEN_BASE_URL", "https://proxy.example/v1")
    assert told(HOST)[0] == "https://proxy.example/v1 (OCTOGEN_BASE_URL)."


@pytest.mark.slow  # it imports Google's libraries
def test_both_components_take_a_host(proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_HOST", HOST)
    with_token("ACCESS", monkeypatch)
    host = {"host": "{{ env.MY_HOST }}"}
    linked = {"project": "my-project", "principal": PRINCIPAL} | host
    with (
        load({"connection": {"attempts": 1} | host}) as (_, own),
        load(linked, LINKED) as (_, shared),
    ):
        defs = dg.Definitions.merge(own, shared)

        @dg.asset
        def asked(
            octogen: OctogenResource, octogen_control_plane: OctogenControlPlaneResource
        ) -> None:
            with pytest.raises(OctogenConnectionError):
                octogen.list_catalogs()
            with pytest.raises(OctogenError):
                ask(octogen_control_plane)

        assert dg.materialize([asked], resources=defs.resources).success
    assert proxy.targets == {"api.storerouter.ai:443", "mcp.storerouter.ai:443"}
