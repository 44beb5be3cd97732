from __future__ import annotations

import pytest

from octogen_dagster.control_plane.tools import Cell, OctogenMCP, SharedListing, Subscriber
from octogen_dagster.errors import OctogenMCPError
from tests.control_plane.servers import (
    PRINCIPAL,
    PROJECT,
    TOKEN,
    mcp,
    octogen_at,
    reply,
    text_result,
)
from tests.sharing.hostile_hub import ABSENT, HubFault
from tests.sharing.hostile_hub import HostileHub as Hub
from tests.sharing.secrets import leaks


def calls(hub: Hub) -> list[tuple[str, str | None]]:
    """The tool calls and token refreshes, without the messages that open a session."""
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


def test_listings_are_those_that_are_shared(hub: Hub, octogen: OctogenMCP) -> None:
    assert octogen.listings() == []
    for catalog in ("acme", "zen"):
        hub.share(catalog)
    shown = [listing(hub, catalog, "<your-project>") for catalog in ("acme", "zen")]
    assert octogen.listings() == shown
    assert octogen.listings(["zen"]) == shown[1:]
    assert calls(hub) == [("token", "OK")] + [("list_bigquery_listing_resources", "OK")] * 3
    assert [call.method for call in hub.calls].count("initialize") == 1


def test_a_registered_subscriber_has_a_cell_for_each_catalog(hub: Hub, octogen: OctogenMCP) -> None:
    assert octogen.subscribers() == ([], [])
    hub.share("acme")
    hub.share("zen", granted=False)
    subscriber, cells = octogen.register(PROJECT, PRINCIPAL)
    assert subscriber == Subscriber("subscriber-1", PROJECT, PRINCIPAL, "enabled")
    assert cells == [
        Cell(
            "subscriber-1",
            listing(hub, catalog, PROJECT),
            status,
            reason,
            "exported_product_view",
            "v1",
        )
        for catalog, status, reason in (
            ("acme", "awaiting_subscription", None),
            ("zen", "preparing", "preparing"),
        )
    ]
    assert octogen.subscribers() == ([subscriber], cells)
    assert octogen.refresh_status("acme", PRINCIPAL) == cells[0]
    for own, sent in (
        ((None, None), ("exported_product_view", "v1")),
        (("raw_products", "v2"), ("raw_products", "v2")),
    ):
        octogen.refresh_status("acme", PRINCIPAL, share_schema=own[0], schema_version=own[1])
        assert hub.calls[-1].arguments == {
            "catalog_key": "acme",
            "subscriber_principal": PRINCIPAL,
            "share_schema": sent[0],
            "schema_version": sent[1],
        }


@pytest.mark.parametrize("named", [["zen", "other"], ["other", "zen", "another"], ["other"]])
def test_a_catalog_that_is_not_granted_does_not_stop_the_others(
    hub: Hub, octogen: OctogenMCP, named: list[str]
) -> None:
    for catalog in ("acme", "zen"):
        hub.share(catalog)
    granted = [catalog for catalog in ("acme", "zen") if catalog in named]
    assert [each.catalog_key for each in octogen.listings(named)] == granted
    assert [outcome for _, outcome in calls(hub)] == ["OK", "error", "OK"]


@pytest.mark.parametrize("value", ["{}", '{"subscribers": null, "cells": null}'])
def test_lists_that_are_null_or_absent_are_empty(value: str) -> None:
    subscriber = '{"subscriber": {"subscriberId": "s"}, "cells": null}'
    with octogen_at(
        mcp(
            lambda request: reply(
                request,
                text_result(subscriber if b"register" in request.body else value),
            )
        )
    ) as octogen:
        assert octogen.subscribers() == ([], [])
        assert octogen.register(PROJECT, PRINCIPAL) == (Subscriber("s", None, None, None), [])


def test_a_refresh_may_bring_no_more_than_the_status() -> None:
    value = text_result('{"catalogKey": "acme", "status": "active"}')
    with octogen_at(mcp(lambda request: reply(request, value))) as octogen:
        cell = octogen.refresh_status("acme", PRINCIPAL)
    assert cell == Cell(None, SharedListing("acme"), "active", None)


def test_a_failure_on_google_s_side_is_retried(hub: Hub, octogen: OctogenMCP) -> None:
    hub.inject(HubFault("tool_error", "request_failed", times=2))
    assert octogen.subscribers() == ([], [])
    hub.inject(HubFault("tool_error", "request_failed"))
    with pytest.raises(OctogenMCPError) as caught:
        octogen.subscribers()
    assert (caught.value.code, caught.value.retry_after) == ("request_failed", 0)
    assert [outcome for _, outcome in calls(hub)] == ["OK", "error", "error", "OK"] + ["error"] * 3


def test_values_may_come_as_text(hub: Hub, octogen: OctogenMCP) -> None:
    hub.share("acme")
    hub.inject(HubFault("text_only"))
    assert len(octogen.listings()) == 1
    assert octogen.register(PROJECT, PRINCIPAL)[0].principal == PRINCIPAL


def test_fields_that_are_missing_or_of_another_type_are_none(hub: Hub, octogen: OctogenMCP) -> None:
    hub.share("acme")
    fields = {"status": ABSENT, "listingResource": 5, "location": " ", "catalogKey": None}
    hub.inject(HubFault("cell", fields))
    _, (cell,) = octogen.register(PROJECT, PRINCIPAL)
    assert cell.status is None
    assert cell.listing.listing_resource is None
    assert cell.listing.location is None
    assert cell.listing.catalog_key is None
    assert Cell.parse("nonsense") == Cell(None, SharedListing(None), None, None)


def test_registering_is_not_repeated_if_it_may_have_been_carried_out(
    hub: Hub, octogen: OctogenMCP
) -> None:
    tool = "register_bigquery_subscriber"
    hub.inject(HubFault("lost_response", method=tool, times=1))
    with pytest.raises(OctogenMCPError, match="failed with 502"):
        octogen.register(PROJECT, PRINCIPAL)
    assert [method for method, _ in calls(hub)].count(tool) == 1
    assert [each.principal for each in octogen.subscribers()[0]] == [PRINCIPAL]
    hub.inject(HubFault("rate_limit", 0, method=tool, times=2))
    octogen.register(PROJECT, PRINCIPAL)
    assert [method for method, _ in calls(hub)].count(tool) == 4


def test_a_tool_that_fails_is_an_error_and_is_not_retried(hub: Hub, octogen: OctogenMCP) -> None:
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


@pytest.mark.parametrize("value", ['"gone"', "[]", "5", "null"])
def test_a_cell_that_is_no_object_is_an_error(value: str) -> None:
    with (
        octogen_at(mcp(lambda request: reply(request, text_result(value)))) as octogen,
        pytest.raises(OctogenMCPError, match=r"answered with \w+ where an object belongs: report"),
    ):
        octogen.refresh_status("acme", PRINCIPAL)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("[]", "answered with list where an object belongs: report it to Octogen."),
        ('{"subscribers": 5, "cells": []}', "answered with int where a list belongs: report it"),
        ('{"subscribers": [], "cells": {}}', "answered with dict where a list belongs: report it"),
    ],
)
def test_subscribers_of_another_shape_are_an_error(value: str, message: str) -> None:
    with (
        octogen_at(mcp(lambda request: reply(request, text_result(value)))) as octogen,
        pytest.raises(OctogenMCPError) as caught,
    ):
        octogen.subscribers()
    assert str(caught.value).startswith(f"Octogen's MCP tool list_bigquery_subscribers {message}")
    assert leaks(caught.value, TOKEN) == []
