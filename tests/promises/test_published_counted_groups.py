"""A source may count groups of what a search lists: a read learns from the last what a count means.

Octogen says how many product groups a shop's catalog has. Whether a search lists the groups or the
variants in them is not documented.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest

from octogen_dagster import (
    OctogenResource,
    ParquetSnapshotIOManager,
    ProductSearch,
    ShopCatalogs,
    build_products_asset,
    build_snapshot_checks,
)
from tests.published_service import PublishedService
from tests.results import failure, metadata

HOSTS = ["acme.example", "zen.example"]


def uuids(catalog: str, count: int) -> list[str]:
    return [f"{catalog}-{number}" for number in range(count)]


@pytest.fixture
def service() -> Iterator[PublishedService]:
    """A service with a catalog of 500 products, 38 of which have no brand, and one of 60."""
    products = uuids("acme", 500)
    with PublishedService(
        {"acme": products, "zen": uuids("zen", 60)},
        brands={each: f"Brand {n % 13}" for n, each in enumerate(products) if n % 13 != 12},
        hosts={"acme.example": ["acme"], "zen.example": ["zen"]},
    ).running() as running:
        yield running


Read = Callable[..., dg.ExecuteInProcessResult]


@pytest.fixture
def read(service: PublishedService, instance: dg.DagsterInstance, tmp_path: Path) -> Read:
    """A function that reads both catalogs into a snapshot, and checks if it is complete."""

    def materialize(*, page_size: int = 100, **settings: Any) -> dg.ExecuteInProcessResult:
        asset = build_products_asset(
            "products", ProductSearch(page_size=page_size), retry_policy=None
        )
        checks = build_snapshot_checks(asset, max_age=None, exclude=["nulls", "rows_within_bounds"])
        octogen = OctogenResource(
            api_key="octo_live_test",
            base_url=service.base_url,
            catalogs=ShopCatalogs(hosts=HOSTS),
            **settings,
        )
        io_manager = ParquetSnapshotIOManager(base_dir=str(tmp_path))
        return dg.materialize(
            [asset, *checks],
            resources={"octogen": octogen, "io_manager": io_manager},
            instance=instance,
            raise_on_error=False,
        )

    return materialize


def complete(result: dg.ExecuteInProcessResult) -> tuple[bool, dg.AssetCheckSeverity, str]:
    """What the check `complete` says."""
    (found,) = [
        each for each in result.get_asset_check_evaluations() if each.check_name == "complete"
    ]
    return found.passed, found.severity, found.description or ""


def warnings(instance: dg.DagsterInstance, result: dg.ExecuteInProcessResult) -> list[str]:
    records = instance.all_logs(result.run_id)
    lines = [each.user_message for each in records if each.level == logging.WARNING]
    return [line for line in lines if "products came" in line]


WARN, ERROR = dg.AssetCheckSeverity.WARN, dg.AssetCheckSeverity.ERROR


def test_fewer_rows_than_the_source_counts_are_a_warning_once(
    read: Read, service: PublishedService
) -> None:
    service.product_counts = {"acme": 1_500, "zen": 60}
    passed, severity, text = complete(read())
    assert (passed, severity) == (False, WARN)
    assert text.startswith("products has 560 of the 1,560 products that the source counts; 64.1 %")

    second = read()
    passed, _, text = complete(second)
    assert passed
    assert text.startswith("products has 560 of the 560 products to expect, 0.359 for each that")
    assert metadata(second, "products")["octogen/expected_rows"] == 560

    service.catalogs["acme"] = uuids("acme", 400)
    passed, severity, text = complete(read())
    assert (passed, severity) == (False, ERROR)
    assert text.startswith("products has 460 of the 560 products to expect")


def test_each_catalog_has_a_ratio_of_its_own(read: Read, service: PublishedService) -> None:
    service.product_counts = {"acme": 100, "zen": 60}
    assert complete(read())[0]
    service.product_counts["zen"] = 600
    service.catalogs["zen"] = uuids("zen", 600)
    passed, _, text = complete(read())
    assert passed
    assert text.startswith("products has 1,100 of the 1,100 products to expect")

    service.catalogs["zen"] = uuids("zen", 400)  # more rows than the source counts products
    passed, severity, _ = complete(read())
    assert (passed, severity) == (False, ERROR)


def test_a_new_catalog_is_a_warning_until_it_was_read(
    read: Read, service: PublishedService
) -> None:
    service.hosts["zen.example"] = []
    assert complete(read())[0]
    service.hosts["zen.example"] = ["zen"]
    service.product_counts["zen"] = 600
    passed, severity, _ = complete(read())
    assert (passed, severity) == (False, WARN)
    assert complete(read())[0]


def test_many_variants_of_each_product_do_not_end_a_read(
    read: Read, service: PublishedService, instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    """A catalog that is larger than what may always come, and more than three times its count."""
    service.catalogs["acme"] = uuids("acme", 11_000)
    service.product_counts["acme"] = 2_200
    first = read()
    assert first.success
    assert pl.read_parquet(tmp_path / "products.parquet").height == 11_060
    assert [line.partition(". It may")[0] for line in warnings(instance, first)] == [
        "Catalog 'acme': 11,000 products came, and its source counts 2,200"
    ]
    second = read()
    assert metadata(second, "products")["octogen/expected_rows"] == 11_060
    assert warnings(instance, second) == []

    service.product_counts["acme"] = 200  # so that more than three times as many come as expected
    assert "the source of catalogs says 200: the pages do not come to an end" in failure(read())


def test_walks_that_bring_less_than_both_counts_are_compared_with_a_read_in_one_walk(
    read: Read, service: PublishedService
) -> None:
    """Before it, nothing says whether the counts mean variants or whether products are missing."""
    service.product_counts["acme"], service.counts["acme"] = 1_500, 1_500
    first = read(page_size=5)
    assert first.success
    assert metadata(first, "products")["octogen/walks"] > 2
    assert complete(first)[:2] == (False, WARN)
    assert complete(read(page_size=5))[:2] == (False, WARN)  # it does not learn from walks in doubt

    assert complete(read(page_size=5, max_extra_pages_ratio=0))[:2] == (False, WARN)
    learned = read(page_size=5)
    assert metadata(learned, "products")["octogen/walks"] > 2
    assert complete(learned)[0]

    service.faults.add("excluded")
    service.catalogs["acme"].reverse()  # so that page 1 has products with a brand only
    assert "Catalog 'acme': only 462 of the " in failure(read(page_size=5))
