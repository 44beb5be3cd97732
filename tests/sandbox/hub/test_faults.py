"""The faults of the hub: which are valid, and which calls they select."""

from typing import Any

import pytest

from octogen_dagster.sandbox.fault_model import ActiveFaults
from octogen_dagster.sandbox.hub.faults import (
    GRPC_KINDS,
    HTTP_KINDS,
    TOKEN,
    TOOL_KINDS,
    HubFault,
    HubFaultKind,
)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"kind": "flood"}, "unknown fault 'flood'"),
        ({"kind": "latency", "value": -1}, "latency needs seconds"),
        ({"kind": "status", "value": 503}, "status needs a gRPC code"),
        ({"kind": "status", "value": "OK"}, "status needs a gRPC code"),
        ({"kind": "http_status", "value": 200}, "http_status needs a number from 400"),
        ({"kind": "tool_error"}, "tool_error needs an error code"),
        ({"kind": "rate_limit"}, "rate_limit needs seconds"),
        ({"kind": "cell", "value": {}}, "cell needs a mapping of fields"),
        ({"kind": "html", "value": 1}, "html takes no value"),
        ({"kind": "html", "times": 0}, "times must be 1 or more"),
        ({"kind": "html", "catalog": "kumo"}, "catalog goes with cell, not with html"),
    ],
)
def test_an_invalid_fault_is_refused(arguments: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        HubFault(**arguments)


def test_a_fault_selects_its_method_and_the_kinds_of_a_surface() -> None:
    anywhere = HubFault("lost_response")
    assert anywhere.selects("GetListing", GRPC_KINDS)
    assert anywhere.selects("initialize", HTTP_KINDS)
    assert not anywhere.selects("initialize", TOOL_KINDS)
    listing = HubFault("lost_response", method="GetListing")
    assert listing.selects("GetListing", GRPC_KINDS)
    assert not listing.selects("ListListings", GRPC_KINDS)


def test_the_token_endpoint_is_hit_by_name_only() -> None:
    assert not HubFault("html").selects(TOKEN, HTTP_KINDS)
    assert HubFault("html").selects("initialize", HTTP_KINDS)
    assert HubFault("html", method=TOKEN).selects(TOKEN, HTTP_KINDS)
    assert not HubFault("html", method=TOKEN).selects("initialize", HTTP_KINDS)


def hit(
    faults: ActiveFaults[HubFault], method: str, kinds: frozenset[HubFaultKind]
) -> list[HubFault]:
    return list(faults.hit(lambda fault: fault.selects(method, kinds)).faults)


def test_faults_take_effect_one_after_the_other_with_latency_added() -> None:
    slow, storm = HubFault("latency", 1), HubFault("status", "INTERNAL", times=2)
    lost = HubFault("lost_response", method="GetListing", times=1)
    faults = ActiveFaults[HubFault]([slow, storm, lost])
    assert hit(faults, "ListListings", GRPC_KINDS) == [slow, storm]
    assert hit(faults, "GetListing", GRPC_KINDS) == [slow, storm]
    assert hit(faults, "ListListings", GRPC_KINDS) == [slow]
    assert hit(faults, "GetListing", GRPC_KINDS) == [slow, lost]
    faults.clear()
    assert hit(faults, "GetListing", GRPC_KINDS) == []


def test_changed_cells_and_missing_structure_are_added_to_a_tool_error() -> None:
    cell, text = HubFault("cell", {"status": "melted"}), HubFault("text_only")
    error, limit = HubFault("tool_error", "boom", times=1), HubFault("rate_limit", 7)
    faults = ActiveFaults[HubFault]([cell, error, text, limit])
    assert hit(faults, "list_bigquery_subscribers", TOOL_KINDS) == [cell, error, text]
    assert hit(faults, "list_bigquery_subscribers", TOOL_KINDS) == [cell, text, limit]
