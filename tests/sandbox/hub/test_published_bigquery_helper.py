"""Octogen's published command lines work with the hub, unchanged.

They call Analytics Hub at Google and have no option for another address. Therefore they run with a
client class of Google's that is connected to the hub. They are loaded by the entry points of the
published package, because this project installs commands of the same names. A process takes
seconds to import Google's packages, so one test starts both programs and the others call them in
the test's process.
"""

import importlib.metadata
import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from google.cloud import bigquery_analyticshub_v1 as ah

from octogen_dagster.sandbox.hub.faults import HubFault
from octogen_dagster.sandbox.hub.server import Hub
from octogen_dagster.sandbox.hub.state import ON_COMMAND, GrantAfter
from tests.sandbox.hub.calls import PRINCIPAL, PROJECT, SECONDS, connect

pytestmark = pytest.mark.slow

_PROGRAMS = importlib.metadata.distribution("octogen-ai-sdk").entry_points
_LAUNCHER = """
import importlib.metadata, sys
import grpc
from google.cloud import bigquery_analyticshub_v1 as ah

endpoint, name, *sys.argv[1:] = sys.argv[1:]
client_class = ah.AnalyticsHubServiceClient
transport = client_class.get_transport_class("grpc")
ah.AnalyticsHubServiceClient = lambda: client_class(
    transport=transport(channel=grpc.insecure_channel(endpoint))
)
programs = importlib.metadata.distribution("octogen-ai-sdk").entry_points
raise SystemExit(programs[name].load()())
"""

Run = Callable[..., tuple[int, str, str]]
Pass = Callable[..., tuple[int, Any]]


@pytest.fixture
def run(hub: Hub, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a published program; returns its exit code, output and error output."""
    for name in [name for name in os.environ if name.startswith("OCTO")]:
        monkeypatch.delenv(name)
    client = connect(hub)
    monkeypatch.setattr(ah, "AnalyticsHubServiceClient", lambda: client)

    def run(name: str, *arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code: int = _PROGRAMS[name].load()(list(arguments))
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def autosubscribe(run: Run) -> Pass:
    """Makes one pass; returns the exit code and the result, or the error output."""

    def autosubscribe(*arguments: str) -> tuple[int, Any]:
        own = ("--project", PROJECT, "--principal", PRINCIPAL, "--json")
        code, output, errors = run("octogen-bq-autosubscribe", *own, *arguments)
        return code, json.loads(output) if output else errors

    return autosubscribe


def by_token(hub: Hub) -> tuple[str, ...]:
    return ("--mcp-url", hub.mcp_url, "--mcp-access-token", hub.access_token)


def methods(hub: Hub, surface: str) -> list[tuple[str, str | None]]:
    return [(call.method, call.outcome) for call in hub.calls if call.surface == surface]


def process(hub: Hub, name: str, *arguments: str) -> Any:
    """The output of a program that runs in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", _LAUNCHER, hub.endpoint, name, *arguments, "--json", "--apply"],
        env=os.environ | hub.environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout)


def test_as_processes(hub: Hub) -> None:
    hub.share("kumo")
    reader = ("--project", PROJECT, "--principal", PRINCIPAL)
    assert process(hub, "octogen-bq-autosubscribe", *reader)["summary"] == {"subscribed": 1}
    listing = ("--listing", hub.share("strada"), "--project", PROJECT)
    assert process(hub, "octogen-bq-subscribe", *listing)["state"] == "STATE_ACTIVE"
    assert [subscription.catalog for subscription in hub.subscriptions] == ["kumo", "strada"]


def test_subscribe(hub: Hub, run: Run) -> None:
    resource = hub.share("north-peak", grant=GrantAfter(denials=1))
    options = ("octogen-bq-subscribe", "--listing", resource, "--project", PROJECT, "--apply")
    code, _, errors = run(*options)
    assert code == 3, errors
    assert "isn't authorized on this listing yet" in errors
    code, output, errors = run(*options, "--json")
    assert code == 0, errors
    result = json.loads(output)
    assert result["state"] == "STATE_ACTIVE"
    assert result["linked_dataset"] == "octogen_north_peak"
    assert result["already_subscribed"] is False
    code, output, _ = run(*options, "--json")
    again = json.loads(output)
    assert (code, again["already_subscribed"]) == (0, True)
    assert again["subscription_name"] == result["subscription_name"] == hub.subscriptions[0].name
    assert methods(hub, "grpc") == [
        ("ListSubscriptions", "OK"),
        ("SubscribeListing", "PERMISSION_DENIED"),
        ("ListSubscriptions", "OK"),
        ("SubscribeListing", "OK"),
        ("ListSubscriptions", "OK"),
    ]


def test_autosubscribe_from_a_dry_run_to_active(
    hub: Hub,
    autosubscribe: Pass,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hub.settings.rotate_refresh_tokens = True
    hub.share("kumo")
    hub.share("strada", grant=ON_COMMAND)
    token_file = tmp_path / "refresh"
    token_file.write_text(hub.refresh_token)
    for name, text in hub.environment.items():
        monkeypatch.setenv(name, text)
    monkeypatch.setenv("OCTOGEN_MCP_REFRESH_TOKEN_FILE", str(token_file))

    code, result = autosubscribe()
    assert (code, result["summary"]) == (0, {"pending": 2})
    assert result["would_register_subscriber"] is True

    code, result = autosubscribe("--apply")
    assert (code, result["summary"]) == (0, {"subscribed": 1, "pending": 1})
    kumo = next(entry for entry in result["catalogs"] if entry["catalog_key"] == "kumo")
    assert kumo["refresh_status"] == "active"
    assert hub.datasets(PROJECT) == {"octogen_kumo": hub.subscriptions[0].name}

    hub.grant_access("strada")
    code, result = autosubscribe("--apply")
    assert (code, result["summary"]) == (0, {"already_active": 1, "subscribed": 1})
    assert token_file.read_text().strip() == hub.refresh_token
    assert methods(hub, "token") == [("token", "OK")] * 3
    assert [method for method, _ in methods(hub, "grpc")].count("SubscribeListing") == 2
    assert {outcome for _, outcome in methods(hub, "mcp")} == {"OK"}


def test_autosubscribe_tells_the_states_apart(hub: Hub, autosubscribe: Pass) -> None:
    for catalog in ("broken", "clashing", "revoked", "stale", "unheard-of", "waiting"):
        hub.share(catalog, grant=ON_COMMAND)
        hub.grant_access(catalog)
    assert autosubscribe("--apply", "--catalog", "stale", *by_token(hub))[0] == 0
    hub.make_stale("stale")
    hub.revoke_access("revoked")
    hub.add_dataset(PROJECT, "octogen_clashing")
    hub.inject(HubFault("cell", {"status": "refresh_failed"}, catalog="broken"))
    hub.inject(HubFault("cell", {"status": "melted"}, catalog="unheard-of"))
    code, result = autosubscribe("--apply", *by_token(hub))
    assert code == 1
    assert {entry["catalog_key"]: entry["action"] for entry in result["catalogs"]} == {
        "broken": "error",
        "clashing": "already_subscribed",
        "revoked": "skipped",
        "stale": "already_active",
        "unheard-of": "pending",
        "waiting": "subscribed",
    }


@pytest.mark.parametrize(
    ("fault", "error_text"),
    [
        (HubFault("rate_limit", 9), r'"code": -32029, "data": \{"retry_after": 9\}'),
        (HubFault("tool_error", "boom"), "MCP tool list_bigquery_listing_resources failed"),
        (HubFault("html"), "MCP initialize returned non-JSON response: <!doctype html>"),
        (HubFault("unauthorized"), "MCP initialize failed with HTTP 401"),
    ],
)
def test_autosubscribe_reports_faults(
    hub: Hub, autosubscribe: Pass, fault: HubFault, error_text: str
) -> None:
    hub.inject(fault)
    code, errors = autosubscribe(*by_token(hub))
    assert code == 1
    assert re.search(error_text, errors)


def test_the_login_writes_the_files_that_autosubscribe_needs(
    hub: Hub, autosubscribe: Pass, tmp_path: Path
) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    files = {name: tmp_path / name for name in ("client-id", "redirect-uri", "refresh-token")}
    options = [part for name, file in files.items() for part in (f"--{name}-file", str(file))]
    module = _PROGRAMS["octogen-mcp-login"].module
    arguments = ["--authkit-domain", hub.authorization_server, "--no-open", "--port", str(port)]
    with subprocess.Popen(
        [sys.executable, "-m", module, *arguments, *options],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as login:
        assert login.stderr
        lines = [login.stderr.readline() for _ in range(3)]
        assert lines[2].startswith("Waiting for OAuth redirect"), lines
        browser = httpx.HTTPTransport(retries=10)
        with httpx.Client(transport=browser, follow_redirects=True, timeout=SECONDS) as client:
            assert "login complete" in client.get(lines[1].strip()).text
        output, errors = login.communicate(timeout=SECONDS)
    assert (login.returncode, errors) == (0, "")
    assert "verified" in output
    code, result = autosubscribe(
        "--mcp-url",
        hub.mcp_url,
        "--mcp-token-endpoint",
        hub.token_endpoint,
        "--mcp-client-id-file",
        str(files["client-id"]),
        "--mcp-refresh-token-file",
        str(files["refresh-token"]),
    )
    assert (code, result["catalogs"]) == (0, [])
