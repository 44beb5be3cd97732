from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import click
import pytest
import tomli
from click.testing import CliRunner, Result

from octogen_dagster.cli import bigquery as bigquery_cli
from octogen_dagster.control_plane import retry as retrying
from octogen_dagster.sandbox.hub.faults import HubFault
from octogen_dagster.sandbox.hub.server import Hub
from octogen_dagster.sandbox.hub.state import ON_COMMAND

PROJECT = "reader-project"
PRINCIPAL = f"serviceAccount:reader@{PROJECT}.iam.gserviceaccount.com"
LISTING = "projects/octogen-sandbox/locations/us/dataExchanges/catalogs/listings/acme"
PROGRAM = (
    "import sys; from octogen_dagster.cli import bigquery as cli; getattr(cli, sys.argv.pop(1))()"
)

Run = Callable[..., Result]


@pytest.fixture(autouse=True)
def _logged_in(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in hub.environment.items():
        monkeypatch.setenv(name, value)


def subscribe(*arguments: str) -> Result:
    return run(bigquery_cli.subscribe, "--listing", LISTING, "--project", PROJECT, *arguments)


def autosubscribe(*arguments: str) -> Result:
    reader = ["--project", PROJECT, "--principal", PRINCIPAL]
    return run(bigquery_cli.autosubscribe, *reader, *arguments)


def run(command: click.Command, *arguments: str) -> Result:
    return CliRunner().invoke(command, arguments)


def process(command: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, command, *arguments],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_subscribing_says_what_it_would_do_and_what_it_did(hub: Hub) -> None:
    hub.share("acme")
    query = f"SELECT * FROM `{PROJECT}.octogen_acme.products_current_v1` LIMIT 10;"
    dry = subscribe()
    assert (dry.exit_code, dry.stderr) == (0, "")
    assert dry.stdout.splitlines() == [
        "Dry run: nothing is changed; --apply does it.",
        f"Listing: {LISTING}",
        f"Linked dataset: {PROJECT}.octogen_acme in us",
        f"Then try: {query}",
    ]
    assert hub.calls == []
    for word in ("Subscribed", "Already subscribed"):
        done = subscribe("--apply")
        assert (done.exit_code, done.stderr) == (0, "")
        assert done.stdout.splitlines() == [
            f"{word}: {PROJECT}.octogen_acme (STATE_ACTIVE)",
            f"Try: {query}",
        ]


def test_a_dry_run_needs_no_google_credentials(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ANALYTICS_HUB_EMULATOR_HOST")
    assert subscribe().exit_code == 0
    hub.share("acme")
    assert autosubscribe().exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "status", "complaint"),
    [
        (["--listing", "acme"], 2, "Error: 'acme' is not the name of a listing: projects/<project"),
        (["--dataset", "my-data"], 2, "Error: Dataset id 'my-data' is invalid"),
        (["--project", "my project"], 2, "Error: Project 'my project' is invalid"),
        (["--location", "eu", "--apply"], 1, "a linked dataset is where its listing is"),
        (["--colour", "red"], 2, "No such option"),
    ],
)
def test_subscribing_that_cannot_work(
    hub: Hub, arguments: list[str], status: int, complaint: str
) -> None:
    hub.share("acme")
    done = subscribe(*arguments)
    assert (done.exit_code, done.stdout) == (status, "")
    assert complaint in done.stderr
    assert "Traceback" not in done.stderr


def test_a_grant_that_has_not_arrived_has_a_status_of_its_own(hub: Hub) -> None:
    hub.share("acme", grant=ON_COMMAND)
    done = subscribe("--apply", "--json")
    assert (done.exit_code, done.stdout) == (3, "")
    assert done.stderr.startswith("Not yet: Listing ")
    assert "try again in a few minutes" in done.stderr


def test_a_pass_says_for_each_catalog_what_it_did(hub: Hub) -> None:
    hub.share("acme")
    hub.share("zen", grant=ON_COMMAND)
    hub.inject(HubFault("cell", {"status": "refresh_failed"}, catalog="broken"))
    hub.share("broken")
    dry = autosubscribe()
    assert (dry.exit_code, dry.stderr) == (0, "")
    assert dry.stdout.splitlines() == [
        "Dry run: nothing is changed; --apply does it.",
        "acme: pending, dataset octogen_acme",
        "    The subscriber is not registered: a pass with --apply registers it, and a later one "
        "subscribes, once Octogen has granted access.",
        "broken: pending, dataset octogen_broken",
        "    The subscriber is not registered: a pass with --apply registers it, and a later one "
        "subscribes, once Octogen has granted access.",
        "zen: pending, dataset octogen_zen",
        "    The subscriber is not registered: a pass with --apply registers it, and a later one "
        "subscribes, once Octogen has granted access.",
        "Catalogs: 3 pending.",
        "The subscriber would be registered.",
    ]
    done = autosubscribe("--apply")
    assert (done.exit_code, done.stderr) == (1, "")
    assert done.stdout.splitlines() == [
        "acme: subscribed, dataset octogen_acme",
        "broken: error, dataset octogen_broken",
        "    Octogen reports refresh_failed: ask Octogen.",
        "zen: pending, dataset octogen_zen",
        "    Octogen has not granted access yet.",
        "Catalogs: 1 subscribed, 1 error, 1 pending.",
        "The subscriber has been registered as subscriber-1.",
    ]
    again = autosubscribe("--apply", "--catalog", "acme, typo")
    assert again.exit_code == 0
    assert again.stdout.splitlines() == [
        "acme: already active, dataset octogen_acme",
        "typo: skipped",
        "    Octogen shares no catalog of this key: check the key.",
        "Catalogs: 1 already active, 1 skipped.",
        "The subscriber is registered as subscriber-1.",
    ]


def test_a_pass_as_json_says_nothing_else(hub: Hub) -> None:
    hub.share("acme")
    done = autosubscribe("--apply", "--json")
    assert (done.exit_code, done.stderr) == (0, "")
    assert json.loads(done.stdout)["summary"] == {"subscribed": 1}


@pytest.mark.parametrize(
    ("arguments", "status", "complaint"),
    [
        (["--timeout", "-1"], 2, "Invalid value for '--timeout'"),
        (["--mcp-url", "ftp://x"], 2, "Error: The MCP URL 'ftp://x' needs a scheme and a host"),
        (["--mcp-url", "http://127.0.0.1:1/"], 1, "did not answer (ConnectError): check the addr"),
        (["--project", ""], 2, "Error: Project '' is invalid"),
        (["--mcp-token-command", "true"], 1, "printed is not a token"),
        (
            ["--mcp-token-command", "sleep 9", "--timeout", "0.2"],
            1,
            "no token within 0.2 s and was",
        ),
        (["--mcp-token-command", "'"], 2, "Error: The token command cannot be split into words"),
        (["--mcp-refresh-token-file", "/no/such"], 1, "/no/such"),
        (["--mcp-refresh-token", "made-up"], 1, "invalid_grant"),
        (["--mcp-access-token", "expired"], 1, "is refused; they live for some five minutes"),
    ],
)
def test_a_pass_that_cannot_begin(arguments: list[str], status: int, complaint: str) -> None:
    done = autosubscribe(*arguments, "--json")
    assert (done.exit_code, done.stdout) == (status, "")
    assert complaint in done.stderr
    assert len(done.stderr.splitlines()) == 1 or status == 2


def test_a_pass_without_a_login(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OCTOGEN_MCP_REFRESH_TOKEN")
    done = autosubscribe()
    assert done.exit_code == 1
    assert "run `octogen-mcp-login` and set OCTOGEN_MCP_REFRESH_TOKEN_FILE" in done.stderr


def test_the_command_line_beats_the_environment(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("OCTOGEN_MCP_TOKEN_COMMAND", "false")
    monkeypatch.setenv("OCTOGEN_MCP_CLIENT_ID_FILE", str(tmp_path / "none"))
    assert autosubscribe().exit_code == 1
    assert autosubscribe("--mcp-access-token", hub.access_token).exit_code == 0
    login = ["--mcp-refresh-token", hub.refresh_token, "--mcp-client-id", hub.client_id]
    assert autosubscribe(*login).exit_code == 0


def test_a_timeout_may_be_longer_than_the_usual_deadline(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retrying, "DEFAULT_DEADLINE", 0.1)
    for method in ("token", "list_bigquery_subscribers"):
        hub.inject(HubFault("latency", 0.5, method=method, times=1))
    done = autosubscribe("--timeout", "20")
    assert done.exit_code == 0, done.stderr


def test_logging_in_and_subscribing_as_one_would(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.settings.rotate_refresh_tokens = True
    hub.share("acme")
    files = ["--mcp-client-id-file", "client", "--mcp-refresh-token-file", "refresh token"]
    person = "import sys, httpx; httpx.get(sys.argv[1], follow_redirects=True)"
    monkeypatch.chdir(tmp_path)
    login = process("login", *files, BROWSER=f"{sys.executable} -c '{person}' %s")
    assert (login.returncode, login.stderr) == (0, "")
    page, *rest = login.stdout.splitlines()
    assert page.startswith(f"Log in on this page: {hub.authorization_server}/oauth2/authorize?")
    assert rest == [
        "Logged in. For octogen-bq-autosubscribe:",
        f"export OCTOGEN_MCP_CLIENT_ID_FILE={tmp_path}/client",
        f"export OCTOGEN_MCP_REFRESH_TOKEN_FILE='{tmp_path}/refresh token'",
        f"export OCTOGEN_MCP_URL={hub.mcp_url}",
        f"export OCTOGEN_MCP_TOKEN_ENDPOINT={hub.token_endpoint}",
    ]
    assert (tmp_path / "refresh token").read_text().strip() not in login.stdout

    monkeypatch.setenv("OCTOGEN_MCP_CLIENT_ID_FILE", "client")
    monkeypatch.setenv("OCTOGEN_MCP_REFRESH_TOKEN_FILE", "refresh token")
    hub.inject(HubFault("html", method="initialize", times=1))
    broken = process("autosubscribe", "--project", PROJECT, "--principal", PRINCIPAL)
    assert broken.returncode == 1
    assert len(broken.stderr.splitlines()) == 1
    done = autosubscribe("--apply")
    assert (done.exit_code, done.stderr) == (0, "")
    assert "acme: subscribed, dataset octogen_acme" in done.stdout


def test_a_login_on_a_port_that_is_taken(hub: Hub, tmp_path: Path) -> None:
    port = hub.endpoint.rpartition(":")[2]
    files = ["--mcp-client-id-file", f"{tmp_path}/c", "--mcp-refresh-token-file", f"{tmp_path}/r"]
    done = run(bigquery_cli.login, *files, "--no-open", "--port", port)
    assert done.exit_code == 1
    assert done.stderr.startswith(f"Error: port {port} cannot be listened on: ")
    assert "already in use" in done.stderr


def test_the_commands_are_where_the_package_says() -> None:
    root = Path(__file__).parents[2]
    scripts = tomli.loads((root / "pyproject.toml").read_text())["project"]["scripts"]
    for name in ("octogen-bq-subscribe", "octogen-bq-autosubscribe", "octogen-mcp-login"):
        module, _, attribute = scripts[name].partition(":")
        assert isinstance(getattr(importlib.import_module(module), attribute), click.Command)


@pytest.mark.parametrize(
    "command", [bigquery_cli.subscribe, bigquery_cli.autosubscribe, bigquery_cli.login]
)
def test_help(command: click.Command) -> None:
    done = run(command, "--help")
    assert done.exit_code == 0
    assert "--apply" in done.stdout or command is bigquery_cli.login
    assert "refresh-" not in done.stdout.replace("refresh-token", "")
