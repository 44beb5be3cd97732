"""A page that cannot be read is not kept, and costs nothing of the pages around it."""

from __future__ import annotations

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
    build_products_asset,
)
from tests.promises.paged_service import PagedService

PAGES = 40
REFUSED = 30
acme = build_products_asset("acme", ProductSearch(catalogs=["acme"]), retry_policy=None)


@pytest.fixture
def service() -> Iterator[PagedService]:
    with PagedService({"acme": PAGES * 100}).running() as service:
        yield service


def runs(service: PagedService, folder: Path) -> dg.ExecuteInProcessResult:
    service.searches.clear()
    return dg.materialize(
        [acme],
        resources={
            "octogen": OctogenResource(api_key=service.api_key, base_url=service.base_url),
            "io_manager": ParquetSnapshotIOManager(base_dir=str(folder)),
        },
        raise_on_error=False,
    )


def break_page(number: int, **fields: Any) -> Any:
    def change(_: str, page: int, products: list[dict[str, Any]]) -> None:
        if page == number:
            products[7].update(fields)

    return change


def leave(_key: str, _page: int, _products: list[dict[str, Any]]) -> None:
    """Send the products as they are."""


@pytest.mark.parametrize(
    "fields",
    [
        {"updatedAt": "yesterday"},
        {"updatedAt": "2026-02-30T03:00:00Z"},
        {"currentPrice": "a lot"},
    ],
    ids=["no time", "no such day", "price"],
)
def test_the_next_run_requests_the_refused_page_again_and_no_page_before_it(
    service: PagedService, tmp_path: Path, fields: dict[str, Any]
) -> None:
    service.change = break_page(REFUSED, **fields)
    assert not runs(service, tmp_path).success
    assert service.pages_of("acme")[:REFUSED] == list(range(1, REFUSED + 1))
    service.change = leave
    assert runs(service, tmp_path).success
    assert service.pages_of("acme") == list(range(REFUSED, PAGES + 1))
    assert pl.read_parquet(tmp_path / "acme.parquet").height == PAGES * 100
