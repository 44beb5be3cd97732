from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from octogen_dagster.api.retry import RetryPolicy
from octogen_dagster.cli.bigquery import autosubscribe, subscribe
from tests.api.clients import QUICK
from tests.servers.octogen_mcp import PRINCIPAL, PROJECT
from tests.sharing.hostile_hub import HostileHub as Hub
from tests.sharing.hostile_hub import HubFault

LISTING = "projects/octogen-sandbox/locations/us/dataExchanges/catalogs/listings/acme"


@pytest.fixture(autouse=True)
def _logged_in(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in hub.environment.items():
        monkeypatch.setenv(name, value)


def run_subscribe(*arguments: str) -> Result:
    return run(subscribe, "--listing", LISTING, "--project", PROJECT, *arguments)


def run_autosubscribe(*arguments: str, retry: RetryPolicy = QUICK) -> Result:
    reader = ["--project", PROJECT, "--principal", PRINCIPAL]
    return run(autosubscribe, *reader, *arguments, retry=retry)


def run(command: click.Command, *arguments: str, retry: RetryPolicy = QUICK) -> Result:
    return CliRunner().invoke(command, arguments, obj=retry)


def test_subscribe_prints_what_it_would_do_and_what_it_did(hub: Hub) -> None:
    hub.share("acme")
    query = f"SELECT * FROM `{PROJECT}.octogen_acme.products_current_v1` LIMIT 10;"
    dry = run_subscribe()
    assert (dry.exit_code, dry.stderr) == (0, "")
    assert dry.stdout.splitlines() == [
        "Dry run: nothing is changed. Add --apply to make the changes.",
        f"Listing: {LISTING}",
        f"Linked dataset: {PROJECT}.octogen_acme in us",
        f"Then try: {query}",
    ]
    assert hub.calls == []
    for word in ("Subscribed", "Already subscribed"):
        done = run_subscribe("--apply")
        assert (done.exit_code, done.stderr) == (0, "")
        assert done.stdout.splitlines() == [
            f"{word}: {PROJECT}.octogen_acme (STATE_ACTIVE)",
            f"Try: {query}",
        ]


def test_a_dry_run_needs_no_google_credentials(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ANALYTICS_HUB_EMULATOR_HOST")
    assert run_subscribe().exit_code == 0
    hub.share("acme")
    assert run_autosubscribe().exit_code == 0


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
def test_wrong_arguments_of_subscribe_are_errors(
    hub: Hub, arguments: list[str], status: int, complaint: str
) -> None:
    hub.share("acme")
    done = run_subscribe(*arguments)
    assert (done.exit_code, done.stdout) == (status, "")
    assert complaint in done.stderr
    assert "Traceback" not in done.stderr


def test_a_grant_that_has_not_arrived_has_an_exit_status_of_its_own(hub: Hub) -> None:
    hub.share("acme", granted=False)
    done = run_subscribe("--apply", "--json")
    assert (done.exit_code, done.stdout) == (3, "")
    assert done.stderr.startswith("Not yet: Listing ")
    assert "try again in a few minutes" in done.stderr


def test_autosubscribe_prints_what_it_did_for_each_catalog(hub: Hub) -> None:
    hub.share("acme")
    hub.share("zen", granted=False)
    hub.inject(HubFault("cell", {"status": "refresh_failed"}, catalog="broken"))
    hub.share("broken")
    dry = run_autosubscribe()
    assert (dry.exit_code, dry.stderr) == (0, "")
    assert dry.stdout.splitlines() == [
        "Dry run: nothing is changed. Add --apply to make the changes.",
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
    done = run_autosubscribe("--apply")
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
    again = run_autosubscribe("--apply", "--catalog", "acme, typo")
    assert again.exit_code == 1
    assert again.stdout.splitlines() == [
        "acme: already active, dataset octogen_acme",
        "typo: error",
        "    Octogen has not granted a catalog of this key to your organisation: check the key, or "
        "ask Octogen for it.",
        "Catalogs: 1 already active, 1 error.",
        "The subscriber is registered as subscriber-1.",
    ]


def test_autosubscribe_prints_nothing_besides_json(hub: Hub) -> None:
    hub.share("acme")
    done = run_autosubscribe("--apply", "--json")
    assert (done.exit_code, done.stderr) == (0, "")
    assert json.loads(done.stdout)["summary"] == {"subscribed": 1}


@pytest.mark.parametrize(
    ("arguments", "status", "complaint"),
    [
        (["--timeout", "-1"], 2, "Invalid value for '--timeout'"),
        (["--mcp-url", "ftp://x"], 2, "Error: The MCP URL 'ftp://x' needs a scheme and a host"),
        (["--mcp-url", "http://127.0.0.1:1/"], 1, "did not answer (ConnectError): check the addr"),
        (["--project", ""], 2, "Error: Project '' is invalid"),
        (["--mcp-token-command", "true"], 1, "printed no token"),
        (
            ["--mcp-token-command", "sleep 9", "--timeout", "0.2"],
            1,
            "did not end within 0.2 s and was",
        ),
        (["--mcp-token-command", "'"], 2, "Error: The token command cannot be split into words"),
        (["--mcp-refresh-token-file", "/no/such"], 1, "/no/such"),
        (["--mcp-refresh-token", "made-up"], 1, "invalid_grant"),
        (["--mcp-access-token", "expired"], 1, "is refused; they live for some five minutes"),
    ],
)
def test_wrong_arguments_of_autosubscribe_are_errors(
    arguments: list[str], status: int, complaint: str
) -> None:
    done = run_autosubscribe(*arguments, "--json")
    assert (done.exit_code, done.stdout) == (status, "")
    assert complaint in done.stderr
    assert len(done.stderr.splitlines()) == 1 or status == 2


def test_autosubscribe_without_a_login_says_how_to_log_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OCTOGEN_MCP_REFRESH_TOKEN")
    done = run_autosubscribe()
    assert done.exit_code == 1
    assert "run `octogen-dagster login`; or set OCTOGEN_MCP_REFRESH_TOKEN_FILE" in done.stderr


def test_the_command_line_wins_over_the_environment(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("OCTOGEN_MCP_TOKEN_COMMAND", "false")
    monkeypatch.setenv("OCTOGEN_MCP_CLIENT_ID_FILE", str(tmp_path / "none"))
    assert run_autosubscribe().exit_code == 1
    assert run_autosubscribe("--mcp-access-token", hub.access_token).exit_code == 0
    login = ["--mcp-refresh-token", hub.refresh_token, "--mcp-client-id", hub.client_id]
    assert run_autosubscribe(*login).exit_code == 0


def test_a_timeout_may_be_longer_than_the_deadline(hub: Hub) -> None:
    for method in ("token", "list_bigquery_subscribers"):
        hub.inject(HubFault("latency", 0.5, method=method, times=1))
    done = run_autosubscribe("--timeout", "20", retry=dataclasses.replace(QUICK, deadline=0.1))
    assert done.exit_code == 0, done.stderr


@pytest.mark.parametrize("command", [subscribe, autosubscribe])
def test_the_help_names_the_options_and_shows_no_secret(command: click.Command) -> None:
    done = run(command, "--help")
    assert done.exit_code == 0
    assert "--apply" in done.stdout
    assert "refresh-" not in done.stdout.replace("refresh-token", "")
