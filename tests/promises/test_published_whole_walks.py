"""A catalog that is read in several walks is whole, and the service's count proves only a lack.

The count is a lower bound, since it misses products without a category.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest

from octogen_dagster import (
    CatalogSource,
    NamedCatalogs,
    OctogenResource,
    ParquetSnapshotIOManager,
    ProductSearch,
    ShopCatalogs,
    build_products_asset,
)
from tests.published_service import PublishedService
from tests.results import failure

BRANDS = [*(f"Brand {number}" for number in range(12)), None]


@pytest.fixture
def service() -> Iterator[PublishedService]:
    """A catalog of 100 pages: twelve brands, and 38 products without one, which are not first."""
    uuids = [f"{number:08}" for number in range(500)]
    pairs = zip(uuids, itertools.cycle(BRANDS), strict=False)
    brands = {uuid: brand for uuid, brand in pairs if brand}
    uuids.sort(key=lambda uuid: uuid not in brands)  # page 1 is compared
    hosts = {"acme.example": ["acme"]}
    with PublishedService(
        {"acme": uuids}, brands=brands, hosts=hosts, counts={"acme": 500}
    ).running() as running:
        yield running


class Days:
    """Materializations of the catalog, one after another."""

    def __init__(self, folder: Path, service: PublishedService) -> None:
        self.folder = folder
        self.service = service
        self.source: CatalogSource = ShopCatalogs(hosts=["acme.example"])

    def materialize(self, *, walks: bool = True) -> dg.ExecuteInProcessResult:
        resources: dict[str, Any] = {
            "octogen": OctogenResource(
                api_key="octo_live_test",
                base_url=self.service.base_url,
                catalogs=self.source,
            ),
            "io_manager": ParquetSnapshotIOManager(base_dir=str(self.folder)),
        }
        products = build_products_asset("products", ProductSearch(catalogs=["acme"], page_size=5))
        self.service.searches.clear()
        result = dg.materialize([products], resources=resources, raise_on_error=False)
        assert any(body.get("exclude_facets") for body in self.service.searches) == walks
        return result

    @property
    def rows(self) -> int:
        return len(pl.read_parquet(self.folder / "products.parquet"))


@pytest.fixture
def days(tmp_path: Path, service: PublishedService) -> Days:
    return Days(tmp_path, service)


def test_walks_that_leave_out_products_that_are_counted_end_the_read(
    days: Days, service: PublishedService
) -> None:
    assert days.materialize().success
    service.faults.add("excluded")
    service.counts["acme"] = 490  # ten have no category
    result = days.materialize()
    assert not result.success
    assert "only 462 of the at least 490 products that the service counts came in any" in failure(
        result
    )
    assert days.rows == 500


def test_without_a_count_of_the_source_the_latest_snapshot_says_how_many_there_are(
    days: Days, service: PublishedService
) -> None:
    days.source = NamedCatalogs(keys=["acme"])
    assert days.materialize(walks=False).success  # no brands are known
    assert days.materialize().success
    service.faults.add("excluded")
    assert "only 462 of the at least 500 products that the service" in failure(days.materialize())
    service.counts["acme"] = 1_500  # of variants, so it says nothing about rows
    assert days.materialize().success
    service.faults.clear()
    service.counts["acme"] = 400
    service.catalogs["acme"] = service.catalogs["acme"][:400]
    assert days.materialize().success
    assert days.rows == 400
