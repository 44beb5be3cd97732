"""Octogen's MCP tools give what they gave, retry what passes and say what to do about the rest."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from octogen_dagster import OctogenControlPlaneResource
from octogen_dagster.errors import (
    OctogenConnectionError,
    OctogenError,
    OctogenMCPAuthenticationError,
    OctogenMCPError,
    OctogenMCPRateLimitError,
    OctogenTimeoutError,
)
from tests.api.servers import POLL_SECONDS, http
from tests.messages import Golden
from tests.promises.control_plane import assert_silent
from tests.servers.octogen_mcp import (
    PRINCIPAL,
    PROJECT,
    OctogenServer,
    refuse,
    reply,
    structured,
    text_result,
)

LISTINGS = "list_bigquery_listing_resources"
SUBSCRIBERS = "list_bigquery_subscribers"
REGISTER = "register_bigquery_subscriber"
REFRESH = "refresh_bigquery_subscription_status"
LISTING = {
    "catalogKey": "acme",
    "listingResource": "projects/p/locations/us/dataExchanges/e/listings/acme",
    "linkedDatasetSuggestion": "octogen_acme",
    "location": "us",
    "sampleQuery": "SELECT 1",
    "status": "active",
}
SUBSCRIBER = {
    "subscriberId": "s-1",
    "subscriberProjectId": PROJECT,
    "subscriberPrincipal": PRINCIPAL,
    "desiredState": "enabled",
}
CELL = {
    **LISTING,
    "subscriberId": "s-1",
    "status": "a_new_word",
    "reasonCode": "preparing",
    "shareSchema": "raw_products",
    "schemaVersion": "v2",
    "newField": [{"of": "Octogen"}],
}


@pytest.fixture
def octogen(server: OctogenServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setenv("OCTOGEN_MCP_ACCESS_TOKEN", server.access_token)
    with OctogenControlPlaneResource(principal=PRINCIPAL).control_plane(60.0) as octogen:
        yield octogen


def test_listings(server: OctogenServer, octogen: Any) -> None:
    server.tools[LISTINGS] = [LISTING, {"catalogKey": None}]
    first, second = octogen.listings()
    assert (first.catalog_key, first.listing_resource) == ("acme", LISTING["listingResource"])
    assert (first.linked_dataset, first.location) == ("octogen_acme", "us")
    assert first.sample_query == "SELECT 1"
    assert {second.catalog_key, second.listing_resource, second.location} == {None}


def test_a_listing_of_a_wrong_type_costs_no_other(server: OctogenServer, octogen: Any) -> None:
    server.tools[LISTINGS] = [7, LISTING | {"catalogKey": 7, "location": None}, LISTING]
    odd, partly, whole = octogen.listings()
    assert {odd.catalog_key, odd.listing_resource} == {None}
    assert (partly.catalog_key, partly.listing_resource) == (None, whole.listing_resource)
    assert whole.catalog_key == "acme"
    server.tools[SUBSCRIBERS] = {"subscribers": [[], SUBSCRIBER], "cells": [CELL | {"status": 7}]}
    (_, subscriber), (cell,) = octogen.subscribers()
    assert (subscriber.subscriber_id, cell.subscriber_id, cell.status) == ("s-1", "s-1", None)


def test_a_catalog_that_is_not_granted_does_not_stop_the_others(
    server: OctogenServer, octogen: Any
) -> None:
    server.tools[LISTINGS] = [LISTING, LISTING | {"catalogKey": "zen"}]
    refusal = structured({"error": "catalog_not_granted", "message": "other"})
    server.fail(LISTINGS, lambda request: reply(request, refusal))
    assert [each.catalog_key for each in octogen.listings(["zen", "other"])] == ["zen"]
    assert server.arguments == [{}]
    assert [each.catalog_key for each in octogen.listings(["zen"])] == ["zen"]
    assert server.arguments[-1] == {"catalogs": ["zen"]}


def test_subscribers_and_cells(server: OctogenServer, octogen: Any) -> None:
    for nothing in ({}, {"subscribers": None, "cells": None}):
        server.tools[SUBSCRIBERS] = nothing
        assert octogen.subscribers() == ([], [])
    server.tools[SUBSCRIBERS] = {"subscribers": [SUBSCRIBER], "cells": [CELL]}
    server.tools[REGISTER] = {"subscriber": SUBSCRIBER, "cells": [CELL]}
    server.tools[REFRESH] = CELL
    (subscriber,), (cell,) = octogen.subscribers()
    assert (subscriber.subscriber_id, subscriber.desired_state) == ("s-1", "enabled")
    assert (subscriber.project, subscriber.principal) == (PROJECT, PRINCIPAL)
    assert (cell.status, cell.reason_code, cell.subscriber_id) == ("a_new_word", "preparing", "s-1")
    assert (cell.share_schema, cell.schema_version) == ("raw_products", "v2")
    assert octogen.register(PROJECT, PRINCIPAL) == (subscriber, [cell])
    assert server.arguments[-1] == {
        "request": {"subscriberProjectId": PROJECT, "subscriberPrincipal": PRINCIPAL}
    }
    assert octogen.refresh_status("acme", PRINCIPAL) == cell
    assert server.arguments[-1] == {
        "catalog_key": "acme",
        "subscriber_principal": PRINCIPAL,
        "share_schema": "exported_product_view",
        "schema_version": "v1",
    }
    octogen.refresh_status("acme", PRINCIPAL, share_schema="raw_products", schema_version="v2")
    assert server.arguments[-1]["share_schema"] == "raw_products"
    assert server.arguments[-1]["schema_version"] == "v2"


def test_a_refresh_may_bring_no_more_than_the_status(server: OctogenServer, octogen: Any) -> None:
    server.tools[REFRESH] = {"catalogKey": "acme", "status": "active"}
    cell = octogen.refresh_status("acme", PRINCIPAL)
    assert (cell.status, cell.subscriber_id, cell.reason_code) == ("active", None, None)


@pytest.mark.parametrize(
    "result",
    [
        structured([LISTING]),
        text_result(json.dumps([LISTING])),
        text_result("[", json.dumps(LISTING), "]"),
        text_result(json.dumps([LISTING]), structuredContent={"result": None}),
    ],
)
def test_a_value_is_structured_or_json_text(
    server: OctogenServer, octogen: Any, result: dict[str, Any]
) -> None:
    server.fail(LISTINGS, lambda request: reply(request, result))
    assert [each.catalog_key for each in octogen.listings()] == ["acme"]


@pytest.mark.parametrize(
    ("result", "code"),
    [
        (structured({"error": "x", "message": "y"}), "x"),
        (text_result('{"error": "x"}', isError=True), "x"),
        (text_result("no such\ntool", isError=True), None),
        (text_result("sorry"), None),
        (structured({"error": "not_authorized"}), "not_authorized"),
        (structured({"error": "request_failed"}), "request_failed"),
        (structured({"error": "access-secret-0"}), "[access token]"),
        (structured({"no": "list"}), None),
    ],
    ids=["x and y", "x", "text", "no JSON", "role", "passes", "token", "no list"],
)
def test_a_tool_that_fails_says_so(
    golden: Golden, server: OctogenServer, octogen: Any, result: dict[str, Any], code: str | None
) -> None:
    server.fail(LISTINGS, lambda request: reply(request, result), times=9)
    with golden.raises(OctogenMCPError) as caught:
        octogen.listings()
    assert caught.value.code == code
    assert (caught.value.retry_after is not None) == (code == "request_failed")
    assert_silent(caught.value)
    assert server.count(LISTINGS) == (3 if code == "request_failed" else 1)


def rate_limited(seconds: float) -> Callable[[Any], list[bytes]]:
    error = {"code": -32029, "message": "Slow down.", "data": {"retry_after": seconds}}
    return lambda request: refuse(request, **error)


def unknown(request: Any) -> list[bytes]:
    return refuse(request, code=-32601, message="no access-secret-0")


def hang_up(request: Any) -> list[bytes]:
    return []


@pytest.mark.parametrize("answer", [http(503), http(429, retry_after="0"), rate_limited(0)])
def test_a_failure_that_passes_is_retried(
    server: OctogenServer, octogen: Any, answer: list[bytes]
) -> None:
    server.fail(LISTINGS, answer, times=2)
    assert octogen.listings() == []
    assert server.count(LISTINGS) == 3


def test_a_registration_is_repeated_only_if_it_was_not_carried_out(
    server: OctogenServer, octogen: Any
) -> None:
    server.tools[REGISTER] = {"subscriber": SUBSCRIBER}
    server.fail(REGISTER, http(502))
    with pytest.raises(OctogenMCPError, match="failed with 502"):
        octogen.register(PROJECT, PRINCIPAL)
    assert server.count(REGISTER) == 1
    server.fail(REGISTER, rate_limited(0), times=2)
    octogen.register(PROJECT, PRINCIPAL)
    assert server.count(REGISTER) == 4


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (rate_limited(900), OctogenMCPRateLimitError),
        (http(503), OctogenMCPError),
        (http(404), OctogenMCPError),
        (http(403), OctogenMCPError),
        (http(401), OctogenMCPAuthenticationError),
        (http(200, "<h1>Hello</h1>"), OctogenMCPError),
        (unknown, OctogenMCPError),
        (hang_up, OctogenConnectionError),
    ],
    ids=["rate limit", "503", "404", "403", "401", "HTML", "unknown", "no response"],
)
def test_a_session_works_again_after_a_call_that_failed(
    golden: Golden, server: OctogenServer, octogen: Any, answer: Any, kind: type[OctogenError]
) -> None:
    assert octogen.listings() == []
    server.fail(LISTINGS, answer, times=3)
    with golden.raises(OctogenError) as caught:
        octogen.listings()
    assert type(caught.value) is kind
    assert_silent(caught.value)
    if isinstance(caught.value, OctogenMCPRateLimitError):
        assert caught.value.retry_after == 900
    server._faults.clear()
    assert octogen.listings() == []


@pytest.mark.parametrize("name", ["initialize", LISTINGS])
def test_no_server_holds_a_call(
    golden: Golden, server: OctogenServer, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    def hang(_: object) -> Iterator[bytes]:
        server.closing.wait(POLL_SECONDS)
        yield b""

    server.fail(name, hang, times=9)
    monkeypatch.setenv("OCTOGEN_MCP_ACCESS_TOKEN", server.access_token)
    resource = OctogenControlPlaneResource(principal=PRINCIPAL)
    with (
        resource.control_plane(0.3) as octogen,
        golden.raises(OctogenTimeoutError),
    ):
        octogen.listings()


def test_no_server_holds_the_end_of_a_session(
    server: OctogenServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_over = threading.Event()

    def hang(_: object) -> Iterator[bytes]:
        server.closing.wait(POLL_SECONDS)
        is_over.set()
        yield b""

    server.fail("DELETE", hang, times=9)
    monkeypatch.setenv("OCTOGEN_MCP_ACCESS_TOKEN", server.access_token)
    with OctogenControlPlaneResource(principal=PRINCIPAL).control_plane() as octogen:
        octogen.listings()
    assert not is_over.is_set()


def test_an_address_that_is_none(
    golden: Golden, server: OctogenServer, octogen: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    resource = OctogenControlPlaneResource(principal=PRINCIPAL, url="http://127.0.0.1:1/mcp/")
    with (
        resource.control_plane() as elsewhere,
        pytest.raises(OctogenConnectionError, match=r"127\.0\.0\.1:1/mcp/.* \(ConnectError\)"),
    ):
        elsewhere.listings()
    clear = OctogenControlPlaneResource(principal=PRINCIPAL, url="http://mcp.octogen.ai/mcp/")
    with golden.raises(ValueError):
        clear.control_plane()
    for name in ("HTTP_PROXY", "ALL_PROXY"):  # this machine is reached without one
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert octogen.listings() == []


def test_a_call_works_inside_a_running_event_loop(server: OctogenServer, octogen: Any) -> None:
    async def inside() -> Any:
        return octogen.listings()

    assert asyncio.run(inside()) == []
