from __future__ import annotations

import json
from datetime import datetime, timezone
from typing import Any

import pytest

from octogen_dagster.api.catalog_states import CatalogState, catalogs_of_shop, parsed_catalog_list
from octogen_dagster.api.domain_coverage import DomainCoverageResponse
from octogen_dagster.api.http import Response
from octogen_dagster.errors import OctogenResponseError

SUBJECT = "The list of catalogs"
NOON = datetime(2026, 3, 4, 12, tzinfo=timezone.utc)
SEVEN = {"catalog": "seven", "displayName": "Seven", "productCount": 1}


def listed(*entries: dict[str, Any]) -> Response:
    return Response(200, content=json.dumps(entries).encode())


@pytest.mark.parametrize(
    "text", ["2026-03-04T12:00:00Z", "2026-03-04T14:00:00+02:00", "2026-03-04T12:00:00"]
)
def test_a_time_may_have_any_zone_or_none(text: str) -> None:
    for catalog in ("seven", 7):
        response = listed({**SEVEN, "catalog": catalog, "lastIndexedAt": text})
        (state,) = parsed_catalog_list(response, SUBJECT).catalogs
        assert (state.catalog, state.last_indexed_at) == (str(catalog), NOON)


def test_all_that_the_list_says_is_kept() -> None:
    response = listed({**SEVEN, "sourceBaseUrl": "https://seven.example", "unknown": [1]})
    (state,) = parsed_catalog_list(response, SUBJECT).catalogs
    assert state == CatalogState("seven", "Seven", "https://seven.example", product_count=1)


def test_only_the_key_is_required() -> None:
    assert parsed_catalog_list(listed({"catalog": "seven"}), SUBJECT).catalogs == [
        CatalogState("seven")
    ]


@pytest.mark.parametrize("time", ["0001-01-01T00:00:00+05:00", "9999-12-31T23:00:00-05:00", "soon"])
def test_a_time_that_cannot_be_used_is_a_warning_and_stops_no_other(time: str) -> None:
    noon = {"catalog": "noon", "lastIndexedAt": "2026-03-04T12:00:00Z"}
    parsed = parsed_catalog_list(listed({**SEVEN, "lastIndexedAt": time}, noon), SUBJECT)
    assert [state.last_indexed_at for state in parsed.catalogs] == [None, NOON]
    assert parsed.warnings == [
        f"Catalog 'seven': its lastIndexedAt {time!r} is not a time that can be used. The catalog "
        "is taken as one without."
    ]
    assert parsed.is_complete


@pytest.mark.parametrize(("count", "read"), [(2**63 - 1, 2**63 - 1), (2**63, None), (10**30, None)])
def test_a_count_that_no_column_can_hold_is_unknown_and_stops_no_other(
    count: int, read: int | None
) -> None:
    parsed = parsed_catalog_list(listed({**SEVEN, "productCount": count}, SEVEN), SUBJECT)
    assert [state.product_count for state in parsed.catalogs] == [read, 1]


@pytest.mark.parametrize("time", ["0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z"])
def test_the_first_and_the_last_time_of_all_are_times(time: str) -> None:
    parsed = parsed_catalog_list(listed({**SEVEN, "lastIndexedAt": time}), SUBJECT)
    assert parsed.catalogs[0].last_indexed_at == datetime.fromisoformat(time.replace("Z", "+00:00"))
    assert not parsed.warnings


@pytest.mark.parametrize(
    ("entry", "what"), [({"catalog": ""}, r"0\.catalog"), ({"productCount": "x"}, "productCount")]
)
def test_an_invalid_field_is_named(entry: dict[str, str], what: str) -> None:
    with pytest.raises(OctogenResponseError, match=what):
        parsed_catalog_list(listed({**SEVEN, **entry}), SUBJECT)


def test_a_catalog_that_was_never_indexed_has_no_time() -> None:
    parsed = parsed_catalog_list(listed({**SEVEN, "lastIndexedAt": None}), SUBJECT)
    assert parsed.catalogs[0].last_indexed_at is None
    assert not parsed.warnings


@pytest.mark.parametrize("content", [b"", b"\xff", b"[" * 100_000, b"<h1>down</h1>"])
def test_a_body_that_is_not_json_is_an_error(content: bytes) -> None:
    with pytest.raises(OctogenResponseError, match=r"^The list of catalogs was answered with 200"):
        parsed_catalog_list(Response(200, content=content), SUBJECT)


def shop(*catalogs: dict[str, Any], **fields: Any) -> DomainCoverageResponse:
    return DomainCoverageResponse.model_validate({"catalogs": list(catalogs), **fields})


def test_the_catalogs_of_a_shop_have_its_host_a_count_and_the_time_of_the_count() -> None:
    entry = {
        "catalog": "seven",
        "catalogDisplayName": "Seven",
        "productCount": 1,
        "computedAt": "2026-03-04T12:00:00Z",
    }
    found = catalogs_of_shop(shop(entry, host="seven.example"), "www.seven.example")
    expected = CatalogState(
        "seven", "Seven", host="seven.example", product_count=1, computed_at=NOON
    )
    assert found.catalogs == [expected]
    assert expected.changed_at == NOON
    assert not found.warnings


def test_a_shop_may_say_no_more_than_the_key() -> None:
    found = catalogs_of_shop(shop({"catalog": "seven"}), "seven.example")
    assert found.catalogs == [CatalogState("seven", host="seven.example")]


@pytest.mark.parametrize("time", ["", "yesterday", "0001-01-01T00:00:00+05:00"])
def test_a_count_whose_time_cannot_be_used_is_a_warning(time: str) -> None:
    found = catalogs_of_shop(shop({"catalog": "seven", "computedAt": time}), "seven.example")
    assert found.catalogs == [CatalogState("seven", host="seven.example")]
    (warning,) = found.warnings
    assert warning.startswith(f"Catalog 'seven': its computedAt {time!r} is not a time")
