from __future__ import annotations

from datetime import datetime, timezone

import httpx
import pytest

from octogen_dagster.api.index_runs import parsed_index_runs
from octogen_dagster.errors import OctogenResponseError

NOON = datetime(2026, 3, 4, 12, tzinfo=timezone.utc)


@pytest.mark.parametrize(
    "text", ["2026-03-04T12:00:00Z", "2026-03-04T14:00:00+02:00", "2026-03-04T12:00:00"]
)
def test_a_time_may_have_any_zone_or_none(text: str) -> None:
    entry = {"catalog": 7, "displayName": "Seven", "productCount": 1, "lastIndexedAt": text}
    for catalog in ("seven", 7):
        response = httpx.Response(200, json=[{**entry, "catalog": catalog}])
        (run,) = parsed_index_runs(response, "The list of catalogs")
        assert (run.catalog, run.last_indexed_at) == (str(catalog), NOON)


@pytest.mark.parametrize(
    ("entry", "what"),
    [({"catalog": ""}, r"0\.catalog"), ({"lastIndexedAt": "soon"}, r"0\.lastIndexedAt")],
)
def test_an_invalid_field_is_named(entry: dict[str, str], what: str) -> None:
    right = {"catalog": "seven", "displayName": "Seven", "productCount": 1}
    response = httpx.Response(
        200,
        json=[{**right, **entry}],
        request=httpx.Request("GET", "http://127.0.0.1/v1/catalogs"),
    )
    with pytest.raises(OctogenResponseError, match=what):
        parsed_index_runs(response, "The list of catalogs")


def test_a_catalog_that_was_never_indexed_has_no_time() -> None:
    entry = {"catalog": "seven", "displayName": "Seven", "productCount": 0, "lastIndexedAt": None}
    (run,) = parsed_index_runs(httpx.Response(200, json=[entry]), "The list of catalogs")
    assert (run.catalog, run.last_indexed_at) == ("seven", None)


@pytest.mark.parametrize("content", [b"", b"\xff", b"[" * 100_000, b"<h1>down</h1>"])
def test_a_body_that_is_not_json_is_an_error(content: bytes) -> None:
    with pytest.raises(OctogenResponseError, match=r"^The list of catalogs was answered with 200"):
        parsed_index_runs(httpx.Response(200, content=content), "The list of catalogs")
