"""A details snapshot of a catalog of the current generation that lost products meanwhile."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest

from octogen_dagster import (
    OctogenResource,
    ParquetSnapshotIOManager,
    ProductSearch,
    build_product_details_asset,
    build_products_asset,
)
from tests.published_service import PublishedService, url_of
from tests.results import metadata

# Every third product is a variant of the one before.
UUIDS = [
    f"p{number}" if number % 3 else f"p{number - 1}?variant={number}" for number in range(1, 301)
]
REMOVED = [uuid for uuid in UUIDS if "?" in uuid]


class ForgetfulService(PublishedService):
    """Does not know the fields of a lookup that ask for the index only, and ignores them."""

    def lookup(self, body: dict[str, Any]) -> tuple[int, Any]:
        return super().lookup({"url": body["url"], "matchMode": "strict"})


@pytest.fixture(params=[PublishedService, ForgetfulService])
def service(request: pytest.FixtureRequest) -> Iterator[PublishedService]:
    """A service with one catalog of 300 products."""
    with request.param({"acme": list(UUIDS)}).running() as running:
        yield running


def test_a_third_of_the_products_was_removed(tmp_path: Path, service: PublishedService) -> None:
    products = build_products_asset("products", ProductSearch(catalogs=["acme"]))
    details = build_product_details_asset(products, failure_threshold=0)
    resources: dict[str, Any] = {
        "octogen": OctogenResource(api_key="octo_live_test", base_url=service.base_url),
        "io_manager": ParquetSnapshotIOManager(base_dir=str(tmp_path)),
    }
    assert dg.materialize([products], resources=resources).success
    service.catalogs["acme"] = [uuid for uuid in UUIDS if uuid not in REMOVED]
    service.shops_only = {url_of("acme", uuid) for uuid in REMOVED}

    result = dg.materialize(
        [products, details], selection=[details], resources=resources, raise_on_error=False
    )

    assert result.success
    rows = pl.read_parquet(tmp_path / "products_details.parquet")
    assert sorted(rows["uuid"]) == sorted(UUIDS)
    assert Counter(rows["status"]) == {"found": 200, "gone": 100}
    assert rows["error"].null_count() == 300
    gone = rows.filter(pl.col("status") == "gone")
    assert sorted(gone["uuid"]) == sorted(REMOVED)
    assert gone["title"].null_count() == 100
    assert set(rows.filter(pl.col("status") == "found")["source"]) == {"indexed"}
    assert set(gone["source"]) == {"on_demand" if type(service) is ForgetfulService else None}
    shown = metadata(result, "products_details")
    assert (shown["octogen/found"], shown["octogen/gone"]) == (200, 100)
    assert (shown["octogen/mismatched"], shown["octogen/failed"]) == (0, 0)
    assert len(service.lookups) == 300
