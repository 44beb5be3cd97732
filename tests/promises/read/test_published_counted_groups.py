"""A source may count groups of what a search lists: a read learns from the last what a count means.

Octogen says how many product groups a shop's catalog has. Whether a search lists the groups or the
variants in them is not documented.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest

from octogen_dagster import ProductSearch, ShopCatalogs, build_products_asset
from tests.published_service import PublishedService
from tests.results import failure, figures, materialized, metadata, octogen_at, warnings

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
    """A function that reads both catalogs into a snapshot."""

    def materialize(*, page_size: int = 100, **settings: Any) -> dg.ExecuteInProcessResult:
        asset = build_products_asset(
            "products", ProductSearch(page_size=page_size), retry_policy=None
        )
        octogen = octogen_at(service, catalog_source=ShopCatalogs(hosts=HOSTS), **settings)
        return materialized([asset], tmp_path, octogen, instance=instance, raise_on_error=False)

    return materialize


def counts(result: dg.ExecuteInProcessResult) -> tuple[int, int, float | None]:
    """The rows, those that were expected, and what a product of the sources meant for them."""
    found = figures(result, "products")
    return found["dagster/row_count"], found["expected_rows"], found.get("rows_per_product")


def of_counts(lines: list[str]) -> list[str]:
    """The warnings that more products were received than counted."""
    return [line for line in lines if "but the catalog source reports" in line]


@pytest.mark.slow
def test_a_read_learns_from_the_last_what_the_count_of_each_catalog_means(
    read: Read, service: PublishedService
) -> None:
    service.product_counts = {"acme": 1_500, "zen": 60}
    assert counts(read()) == (560, 1_560, None)
    assert counts(read()) == (560, 560, 0.359)
    service.catalogs["acme"] = uuids("acme", 400)
    assert counts(read())[:2] == (460, 560)

    service.product_counts["zen"] = 600
    service.catalogs["zen"] = uuids("zen", 600)
    assert counts(read())[:2] == (1_000, 1_000)
    service.catalogs["zen"] = uuids("zen", 400)
    assert counts(read())[:2] == (800, 1_000)


@pytest.mark.long
def test_many_variants_of_each_product_do_not_end_a_read(
    read: Read, service: PublishedService, instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    """A catalog that is larger than what may always come, and more than three times its count."""
    service.catalogs["acme"] = uuids("acme", 11_000)
    service.product_counts["acme"] = 2_200
    first = read()
    assert first.success
    assert pl.read_parquet(tmp_path / "products.parquet").height == 11_060
    (warning,) = of_counts(warnings(instance, first))
    assert re.findall(r"'acme'|[\d,]*\d", warning) == ["'acme'", "11,000", "2,200"]
    second = read()
    assert metadata(second, "products")["octogen/metrics"]["expected_rows"] == 11_060
    assert of_counts(warnings(instance, second)) == []

    service.product_counts["acme"] = 200  # so that more than three times as many come as expected
    message = failure(read())
    assert "OctogenPagingError" in message
    assert re.search(r"'acme'.*\b200\b", message)


@pytest.mark.long
def test_walks_that_bring_less_than_both_counts_are_compared_with_a_read_in_one_walk(
    read: Read, service: PublishedService
) -> None:
    """Before it, nothing says whether the counts mean variants or whether products are missing."""
    service.product_counts["acme"], service.counts["acme"] = 1_500, 1_500
    first = read(page_size=5)
    assert first.success
    assert figures(first, "products")["walks"] > 2
    assert counts(first) == (560, 1_560, None)
    assert counts(read(page_size=5)) == (560, 1_560, None)  # nothing is learnt from walks in doubt

    assert counts(read(page_size=5, max_extra_pages_percent=0)) == (560, 1_560, None)
    learned = read(page_size=5)
    assert figures(learned, "products")["walks"] > 2
    assert counts(learned)[:2] == (560, 560)

    service.faults.add("excluded")
    service.catalogs["acme"].reverse()  # so that page 1 has products with a brand only
    message = failure(read(page_size=5))
    assert re.search(r"'acme'.*\b462 products", message)
    assert "max_extra_pages_percent=0" in message
