"""autosubscribe: one pass that can be repeated subscribes to all that Octogen shares."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from octogen_dagster.cli.main import main
from octogen_dagster.sharing.hub import AnalyticsHub
from tests.messages import Golden
from tests.servers.google import BY_NUMBER, EXCHANGE, LISTING, PROJECT, Google
from tests.servers.octogen import Octogen
from tests.servers.octogen_mcp import CLIENT, PRINCIPAL

LISTINGS, SUBSCRIBERS, REGISTER, REFRESH = (
    "list_bigquery_listing_resources",
    "list_bigquery_subscribers",
    "register_bigquery_subscriber",
    "refresh_bigquery_subscription_status",
)


pytestmark = pytest.mark.usefixtures("quick_google")


def run(
    octogen: Octogen, *arguments: str, google: Google | None = None, logged_in: bool = True
) -> Result:
    with (
        octogen.running() as url,
        (google or Google()).running() as endpoint,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setenv("ANALYTICS_HUB_EMULATOR_HOST", endpoint)
        patch.setenv("OCTOGEN_MCP_TOKEN_ENDPOINT", octogen.token_endpoint)
        reader = ["--project", PROJECT, "--principal", PRINCIPAL]
        access = ["--mcp-access-token", octogen.access_token] if logged_in else []
        command = ["bq", "autosubscribe", *reader, "--mcp-url", url, *access, *arguments]
        return CliRunner().invoke(main, command)


def passed(octogen: Octogen, *arguments: str, google: Google | None = None) -> dict[str, Any]:
    """The JSON of a pass that makes changes."""
    done = run(octogen, "--apply", "--json", *arguments, google=google)
    result: dict[str, Any] = json.loads(done.stdout)
    assert (done.exit_code, done.stderr) == (int("error" in result["summary"]), "")
    return result


def actions(result: dict[str, Any]) -> dict[str, str]:
    return {each["catalog_key"]: each["action"] for each in result["catalogs"]}


def test_a_pass_prints_what_it_would_do_and_what_it_did(golden: Golden) -> None:
    octogen, google = Octogen(), Google()
    octogen.share("acme")
    octogen.share("broken", "refresh_failed")
    octogen.share("zen", "preparing")
    dry = run(octogen, google=google)
    assert (dry.exit_code, dry.stderr) == (0, "")
    golden("output", dry.stdout)
    assert (octogen.asked, google.calls) == ([LISTINGS, SUBSCRIBERS], [])
    done = run(octogen, "--apply", google=google)
    assert (done.exit_code, done.stderr) == (1, "")
    golden("output", done.stdout)
    again = run(octogen, "--apply", "--catalog", "acme, typo", google=google)
    assert again.exit_code == 1
    golden("output", again.stdout)
    assert len(google.subscriptions) == 1


def test_octogen_is_asked_to_look_at_the_schema_of_the_cell() -> None:
    octogen, google = Octogen().register(), Google()
    octogen.share("acme", linkedDatasetSuggestion="mine", shareSchema="raw", schemaVersion="v2")
    passed(octogen, "--friendly-name", "Shops", google=google)
    assert google.requests[0].destination_dataset.friendly_name == "Shops"
    assert octogen.asked == [LISTINGS, SUBSCRIBERS, REFRESH]
    assert octogen.arguments[-1] == {
        "catalog_key": "acme",
        "subscriber_principal": PRINCIPAL,
        "share_schema": "raw",
        "schema_version": "v2",
    }


def test_a_subscriber_that_octogen_does_not_serve_is_pending(golden: Golden) -> None:
    octogen = Octogen().register(desiredState="disabled")
    octogen.share("acme")
    (catalog,) = passed(octogen)["catalogs"]
    assert (catalog["action"], catalog["status"]) == ("pending", "disabled")
    golden("logs", catalog["message"])


def test_a_catalog_that_fails_does_not_stop_the_others(golden: Golden) -> None:
    octogen, google = Octogen().register(), Google(datasets={"octogen_a"})
    for catalog in ("a", "b", "c"):
        octogen.share(catalog)
    google.add(f"{EXCHANGE}/listings/b", "linked_b")
    result = passed(octogen, google=google)
    assert actions(result) == {"a": "error", "b": "already_subscribed", "c": "subscribed"}
    golden("logs", result["catalogs"][0]["message"])
    assert result["catalogs"][1]["linked_dataset"] == "linked_b"


def test_a_google_that_is_silent_is_waited_for_once(
    golden: Golden, monkeypatch: pytest.MonkeyPatch
) -> None:
    defaults = AnalyticsHub.__init__.__kwdefaults__
    assert defaults
    monkeypatch.setitem(defaults, "deadline", 2.0)
    octogen, google = Octogen().register(), Google()
    for catalog in ("a", "b", "c"):
        octogen.share(catalog)
    google.refuse("SubscribeListing", "UNAVAILABLE", 1000)
    result = passed(octogen, google=google)
    assert {each["action"] for each in result["catalogs"]} == {"error"}
    assert len({each["message"] for each in result["catalogs"]}) == 1
    golden("logs", result["catalogs"][0]["message"])
    assert google.calls.count("ListSubscriptions") <= 1  # none if connecting takes too long


@pytest.mark.parametrize(
    ("status", "reason", "action"),
    [
        ("awaiting_subscription", "known before", "would_subscribe"),
        ("active", "removing", "already_active"),
        ("source_stale", None, "already_active"),
        ("refresh_failed", None, "error"),
        ("access_grant_failed", "needs_attention", "error"),
        ("pending", "needs_attention", "error"),
        ("pending", "catalog_not_enabled", "skipped"),
        ("pending", "scope_revoked", "skipped"),
        ("pending", "removing", "skipped"),
        ("removing", "removing", "skipped"),
        ("preparing", "preparing", "pending"),
        ("pending", None, "pending"),
        ("melted", None, "pending"),
        (None, None, "pending"),
    ],
)
def test_the_status_and_its_reason_decide_what_is_done(
    status: str | None, reason: str | None, action: str
) -> None:
    octogen = Octogen().register()
    octogen.share("acme", status, reasonCode=reason)
    done = run(octogen, "--json")
    assert actions(json.loads(done.stdout)) == {"acme": action}
    assert done.exit_code == (action == "error")


@pytest.mark.parametrize("answer", [{"error": "boom"}, {"catalogKey": "acme", "status": "pending"}])
def test_the_pass_reports_what_octogen_says_after_the_subscription(answer: dict[str, str]) -> None:
    octogen = Octogen().register()
    octogen.share("acme")
    octogen.tools[REFRESH] = answer
    (catalog,) = passed(octogen)["catalogs"]
    failed = "error" in answer
    assert catalog["action"] == ("error" if failed else "subscribed")
    assert catalog["refresh_status"] == answer.get("status")
    assert catalog["status"] == ("awaiting_subscription" if failed else "pending")


def test_a_denial_in_spite_of_the_grant_is_an_error_and_not_pending() -> None:
    """A scheduled command that ends well would hide a project without the right."""
    octogen, google = Octogen().register(), Google()
    octogen.share("acme")
    google.refuse("SubscribeListing", "PERMISSION_DENIED", 1)
    assert passed(octogen, google=google)["summary"] == {"error": 1}


@pytest.mark.parametrize("flags", [["--apply"], []])
@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ({"listingResource": "acme"}, "'acme' is not the name of a listing"),
        ({"linkedDatasetSuggestion": "my-data"}, "Dataset id 'my-data' is invalid"),
    ],
)
def test_an_offer_that_cannot_work_is_an_error_in_a_dry_run_too(
    flags: list[str], cell: dict[str, str], message: str
) -> None:
    octogen = Octogen().register()
    octogen.share("acme", **cell)
    octogen.listings[0].update(cell)
    done = run(octogen, *flags)
    assert done.exit_code == 1
    assert message in done.stdout


def test_what_a_cell_leaves_out_is_taken_from_its_listing(golden: Golden) -> None:
    octogen = Octogen().register()
    octogen.share("acme", linkedDatasetSuggestion=None, location=None, listingResource=None)
    assert actions(passed(octogen)) == {"acme": "subscribed"}
    octogen = Octogen().register()
    octogen.share("acme", "awaiting_subscription", listingResource=None)
    octogen.listings.clear()
    (catalog,) = passed(octogen)["catalogs"]
    golden("logs", catalog["message"])


@pytest.mark.parametrize(
    "named",
    [BY_NUMBER, LISTING.replace("/us/", "/US/"), f"{EXCHANGE}/listings/of-last-year"],
    ids=["number", "case", "not shared"],
)
def test_a_cell_belongs_to_its_listing_however_it_names_it_or_to_that_of_its_catalog(
    named: str,
) -> None:
    octogen, google = Octogen().register(), Google()
    octogen.share("zen", "active")
    octogen.share("acme", listingResource=named)
    result = passed(octogen, google=google)
    assert actions(result) == {"acme": "subscribed", "zen": "already_active"}
    assert result["summary"] == {"subscribed": 1, "already_active": 1}
    assert [each.name for each in google.requests] == [LISTING]


@pytest.mark.parametrize(
    ("arguments", "status", "complaint"),
    [
        (["--timeout", "-1"], 2, "Invalid value for '--timeout'"),
        (["--princ", PRINCIPAL], 2, "No such option"),
        (["--mcp-token-command", "'"], 2, "Error: "),
        (["--project", "a/b"], 2, "Error: Project 'a/b' is invalid"),
        (["--mcp-url", "ftp://x"], 2, "Error: The MCP URL 'ftp://x' needs a scheme and a host"),
        (["--mcp-access-token", "expired"], 1, "`octogen-dagster login`"),
        (["--mcp-refresh-token", "made-up"], 1, "invalid_grant"),
    ],
)
def test_what_a_pass_cannot_do_is_an_error(
    arguments: list[str], status: int, complaint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OCTOGEN_MCP_CLIENT_ID", CLIENT)
    done = run(Octogen(), *arguments, "--json")
    assert (done.exit_code, done.stdout) == (status, "")
    assert complaint in done.stderr
    assert "Traceback" not in done.stderr


def test_a_login_on_the_command_line_wins_over_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OCTOGEN_MCP_TOKEN_COMMAND", "echo access-secret-of-nobody")
    assert run(Octogen()).exit_code == 0


def test_without_a_login_a_pass_says_how_to_log_in(
    golden: Golden, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    done = run(Octogen(), logged_in=False)
    assert done.exit_code == 1
    golden("errors", done.stderr)


def test_a_dry_run_needs_no_google_credentials(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    octogen = Octogen().register()
    octogen.share("acme")
    assert run(octogen, "--json").exit_code == 0


@pytest.mark.parametrize("command", ["subscribe", "autosubscribe"])
def test_the_help_names_the_options_and_shows_no_secret(
    command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OCTOGEN_MCP_REFRESH_TOKEN", "refresh-secret")
    done = CliRunner().invoke(main, ["bq", command, "--help"])
    assert done.exit_code == 0
    assert "--apply" in done.stdout
    assert "secret" not in done.stdout
