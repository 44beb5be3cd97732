from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import SecretStr

from octogen_dagster.control_plane.tokens import GivenToken, RefreshedToken
from octogen_dagster.control_plane.tools import Cell, OctogenMCP, SharedListing, Subscriber
from octogen_dagster.errors import (
    OctogenError,
    OctogenMCPAuthenticationError,
    OctogenMCPError,
    OctogenMCPRateLimitError,
    OctogenTimeoutError,
)
from octogen_dagster.sandbox.hub.faults import ABSENT, HubFault
from octogen_dagster.sandbox.hub.hub import Hub
from octogen_dagster.sandbox.hub.state import ON_COMMAND

PROJECT = "reader-project"
PRINCIPAL = f"serviceAccount:reader@{PROJECT}.iam.gserviceaccount.com"
TOKEN = "access-0123456789"


@pytest.fixture
def octogen(hub: Hub) -> Iterator[OctogenMCP]:
    tokens = RefreshedToken(hub.refresh_token, lambda: hub.client_id, hub.token_endpoint)
    with OctogenMCP(tokens, hub.mcp_url) as octogen:
        yield octogen


def calls(hub: Hub) -> list[tuple[str, str | None]]:
    """The tool calls and the refreshes; what MCP needs besides is left out."""
    return [
        (call.method, call.outcome)
        for call in hub.calls
        if call.method not in ("initialize", "notifications/initialized")
    ]


def listing(hub: Hub, catalog: str, project: str) -> SharedListing:
    return SharedListing(
        catalog_key=catalog,
        listing_resource=hub.listing_resource(catalog),
        linked_dataset=f"octogen_{catalog}",
        location="us",
        sample_query=f"SELECT * FROM `{project}.octogen_{catalog}.products_current_v1` LIMIT 10;",
    )


def test_the_listings(hub: Hub, octogen: OctogenMCP) -> None:
    assert octogen.listings() == []
    for catalog in ("acme", "zen"):
        hub.share(catalog)
    shown = [listing(hub, catalog, "<your-project>") for catalog in ("acme", "zen")]
    assert octogen.listings() == shown
    assert octogen.listings(["zen", "other"]) == shown[1:]
    assert calls(hub) == [("token", "OK")] + [("list_bigquery_listing_resources", "OK")] * 3
    assert [call.method for call in hub.calls].count("initialize") == 1


def test_subscribers_and_cells(hub: Hub, octogen: OctogenMCP) -> None:
    assert octogen.subscribers() == ([], [])
    hub.share("acme")
    hub.share("zen", grant=ON_COMMAND)
    subscriber, cells = octogen.register(PROJECT, PRINCIPAL)
    assert subscriber == Subscriber("subscriber-1", PROJECT, PRINCIPAL, "enabled")
    assert cells == [
        Cell("subscriber-1", listing(hub, "acme", PROJECT), "awaiting_subscription", None),
        Cell("subscriber-1", listing(hub, "zen", PROJECT), "pending", None),
    ]
    assert octogen.subscribers() == ([subscriber], cells)
    assert octogen.refresh_status("acme", PRINCIPAL) == cells[0]
    assert hub.calls[-1].arguments == {
        "catalog_key": "acme",
        "subscriber_principal": PRINCIPAL,
        "share_schema": "exported_product_view",
        "schema_version": "v1",
    }


def test_values_that_come_as_text(hub: Hub, octogen: OctogenMCP) -> None:
    hub.share("acme")
    hub.inject(HubFault("text_only"))
    assert len(octogen.listings()) == 1
    assert octogen.register(PROJECT, PRINCIPAL)[0].principal == PRINCIPAL


def test_fields_that_are_missing_or_of_another_kind(hub: Hub, octogen: OctogenMCP) -> None:
    hub.share("acme")
    fields = {"status": ABSENT, "listingResource": 5, "location": " ", "catalogKey": None}
    hub.inject(HubFault("cell", fields))
    _, (cell,) = octogen.register(PROJECT, PRINCIPAL)
    assert cell.status is None
    assert cell.listing.listing_resource is None
    assert cell.listing.location is None
    assert cell.listing.catalog_key is None
    assert Cell.of("nonsense") == Cell(None, SharedListing(None), None, None)


def test_a_token_that_expires_on_the_way(hub: Hub, octogen: OctogenMCP) -> None:
    octogen.listings()
    hub.expire_access_tokens()
    assert octogen.listings() == []
    assert [method for method, _ in calls(hub)].count("token") == 2


def test_a_token_that_stays_refused(hub: Hub, octogen: OctogenMCP) -> None:
    hub.inject(HubFault("unauthorized"))
    with pytest.raises(OctogenMCPAuthenticationError) as caught:
        octogen.listings()
    assert str(caught.value) == (
        f"Octogen's MCP at {hub.mcp_url}, asked for list_bigquery_listing_resources, refused the "
        "access token (401): get a new one, or run `octogen-mcp-login` again."
    )
    assert calls(hub) == [("token", "OK")] * 2


def test_an_expired_token_that_was_given(hub: Hub) -> None:
    with (
        OctogenMCP(GivenToken("expired"), hub.mcp_url) as octogen,
        pytest.raises(OctogenMCPAuthenticationError, match="live for some five minutes"),
    ):
        octogen.listings()


@pytest.mark.parametrize("kind", ["http_status", "lost_answer", "rate_limit"])
def test_what_is_tried_again(hub: Hub, octogen: OctogenMCP, kind: Any) -> None:
    value = {"http_status": 503, "rate_limit": 0}.get(kind)
    tool = "list_bigquery_listing_resources"
    hub.inject(HubFault(kind, value, method=tool, times=2))
    assert octogen.listings() == []
    assert [method for method, _ in calls(hub)].count(tool) == 3


def test_registering_is_not_repeated_when_it_may_have_happened(
    hub: Hub, octogen: OctogenMCP
) -> None:
    tool = "register_bigquery_subscriber"
    hub.inject(HubFault("lost_answer", method=tool, times=1))
    with pytest.raises(OctogenMCPError, match="failed with 502"):
        octogen.register(PROJECT, PRINCIPAL)
    assert [method for method, _ in calls(hub)].count(tool) == 1
    assert [each.principal for each in octogen.subscribers()[0]] == [PRINCIPAL]
    hub.inject(HubFault("rate_limit", 0, method=tool, times=2))
    octogen.register(PROJECT, PRINCIPAL)
    assert [method for method, _ in calls(hub)].count(tool) == 4


@pytest.mark.parametrize(
    ("fault", "kind", "message"),
    [
        (
            HubFault("html"),
            OctogenMCPError,
            "gave no result (-32600: Unexpected content type: text/html; charset=utf-8): check the "
            "address of the MCP server, or report it to Octogen.",
        ),
        (HubFault("http_status", 404), OctogenMCPError, "refused with 404 (Not Found): check the"),
        (HubFault("http_status", 403), OctogenMCPError, "refused with 403 (Server returned an"),
        (HubFault("http_status", 503), OctogenMCPError, "failed with 503: try again later."),
        (HubFault("http_status", 429), OctogenMCPRateLimitError, "failed with 429: try again"),
        (
            HubFault("rate_limit", 900),
            OctogenMCPRateLimitError,
            "refused: the organisation's request budget is spent (rate_limit_exceeded). Try again "
            "in 900 s.",
        ),
    ],
)
def test_answers_that_are_no_results(
    hub: Hub, octogen: OctogenMCP, fault: HubFault, kind: type[OctogenError], message: str
) -> None:
    hub.inject(fault)
    with pytest.raises(kind) as caught:
        octogen.listings()
    assert type(caught.value) is kind
    assert str(caught.value).startswith(
        f"Octogen's MCP at {hub.mcp_url}, asked for list_bigquery_listing_resources, "
    )
    assert message in str(caught.value)
    hub.clear_faults()
    assert octogen.listings() == []


def test_a_tool_that_fails(hub: Hub, octogen: OctogenMCP) -> None:
    hub.inject(HubFault("tool_error", "boom", method="list_bigquery_subscribers"))
    with pytest.raises(OctogenMCPError) as caught:
        octogen.subscribers()
    assert str(caught.value) == (
        "Octogen's MCP tool list_bigquery_subscribers failed: boom: on request."
    )
    with pytest.raises(OctogenMCPError, match="subscriber_not_found: x is not registered"):
        octogen.refresh_status("acme", "x")
    assert [method for method, _ in calls(hub)] == [
        "token",
        "list_bigquery_subscribers",
        "refresh_bigquery_subscription_status",
    ]


@pytest.mark.timeout(20)
def test_a_deadline_bounds_a_single_try_as_well(hub: Hub) -> None:
    hub.inject(HubFault("latency", 60))
    octogen = OctogenMCP(GivenToken(hub.access_token), hub.mcp_url, deadline=0.2)
    with octogen, pytest.raises(OctogenTimeoutError, match=r"did not answer within 0\.2 s"):
        octogen.subscribers()


def test_what_is_on_this_machine_is_reached_past_a_proxy(
    octogen: OctogenMCP, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert octogen.listings() == []


def test_it_works_inside_a_running_event_loop(hub: Hub, octogen: OctogenMCP) -> None:
    import asyncio

    async def inside() -> list[SharedListing]:
        return octogen.listings()

    hub.share("acme")
    assert len(asyncio.run(inside())) == 1


def test_a_token_goes_to_no_other_machine_in_the_clear() -> None:
    with pytest.raises(ValueError, match="would send a token over plain http"):
        OctogenMCP(GivenToken(TOKEN), "http://mcp.octogen.ai/mcp/")


def test_the_token_is_sent_and_shows_nowhere(
    hub: Hub, octogen: OctogenMCP, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    caplog.set_level("DEBUG", logger="mcp")
    octogen.listings()
    token = RefreshedToken(hub.refresh_token, lambda: hub.client_id, hub.token_endpoint).token()
    assert token != SecretStr("")
    assert "sandbox-access-" not in caplog.text
    assert "sandbox-refresh-" not in caplog.text
    assert "list_bigquery_listing_resources" in caplog.text


def test_without_the_package_mcp_it_says_what_to_install() -> None:
    program = """
import sys
sys.modules["mcp"] = None
from octogen_dagster.control_plane.tools import OctogenMCP
from octogen_dagster.control_plane.tokens import GivenToken
try:
    OctogenMCP(GivenToken("x")).listings()
except Exception as error:
    print(type(error).__name__, error)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == (
        "OctogenMCPError Octogen's MCP needs mcp: pip install 'octogen-dagster[mcp]'.\n"
    )
