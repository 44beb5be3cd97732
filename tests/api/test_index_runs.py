from datetime import datetime, timezone

import httpx
import pytest

from octogen_dagster.api.client import OctogenClient
from octogen_dagster.api.index_runs import read_index_runs
from octogen_dagster.errors import OctogenResponseError
from octogen_dagster.sandbox.faults import Fault
from octogen_dagster.sandbox.server import Sandbox

NOON = datetime(2026, 3, 4, 12, tzinfo=timezone.utc)


async def test_index_runs_are_those_of_the_models(shops: Sandbox) -> None:
    shops.grant("empty", products=0)
    shops.inject(Fault("unknown_fields"))
    async with OctogenClient(api_key=shops.api_key, base_url=shops.base_url) as client:
        summaries = await client.list_catalogs()
        catalogs = await client.read_catalogs(read_index_runs)
    assert [(entry.catalog, entry.last_indexed_at) for entry in catalogs] == [
        (summary.catalog, summary.last_indexed_at) for summary in summaries
    ]
    assert len(catalogs) == 3


@pytest.mark.parametrize(
    "text", ["2026-03-04T12:00:00Z", "2026-03-04T14:00:00+02:00", "2026-03-04T12:00:00"]
)
def test_a_time_is_the_same_however_it_is_written(text: str) -> None:
    entry = {"catalog": 7, "displayName": "Seven", "productCount": 1, "lastIndexedAt": text}
    for catalog in ("seven", 7):
        answer = httpx.Response(200, json=[{**entry, "catalog": catalog}])
        (run,) = read_index_runs(answer, "The list of catalogs")
        assert (run.catalog, run.last_indexed_at) == (str(catalog), NOON)


@pytest.mark.parametrize(
    ("entry", "what"),
    [({"catalog": ""}, r"0\.catalog"), ({"lastIndexedAt": "soon"}, r"0\.lastIndexedAt")],
)
def test_what_is_wrong_is_named(entry: dict[str, str], what: str) -> None:
    right = {"catalog": "seven", "displayName": "Seven", "productCount": 1}
    answer = httpx.Response(
        200,
        json=[{**right, **entry}],
        request=httpx.Request("GET", "http://127.0.0.1/v1/catalogs"),
    )
    with pytest.raises(OctogenResponseError, match=what):
        read_index_runs(answer, "The list of catalogs")
