"""What a read continues from, and what it does not: its rows are of one state of the catalog."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest

import octogen_dagster as od
from tests.api.servers import http
from tests.promises.paged_service import PagedService
from tests.results import octogen_at, stored

PAGES = 60
DIES_AT = 56
SEARCH = od.ProductSearch(catalogs=["acme"], page_size=5)
WHOLE = [*range(1, PAGES + 1)]


@dataclass
class Shop(PagedService):
    """A service with one catalog of 60 pages, whose products have the price of its state.

    Attributes:
        state: The state of the catalog.
        refusal: The status by which cursors are refused in the next request with one; 0 for none.
        fails_at: The page that cannot be read; 0 for none.
    """

    state: int = 1
    refusal: int = 0
    fails_at: int = 0

    def _respond(self, request: Any) -> list[bytes]:
        cursor = b"cursor" in request.body
        if cursor and self.refusal:
            status, self.refusal = self.refusal, 0
            return http(status, {"detail": "cursor"})
        return super()._respond(request)

    def _page(self, key: str, cursor: str | None, limit: int) -> dict[str, Any]:
        page = super()._page(key, cursor, limit)
        if self.fails_at and page["nextCursor"] and int(page["nextCursor"]) == 5 * self.fails_at:
            page["items"][0]["currentPrice"] = "a lot"
            return page
        for product in page["items"]:
            product["currentPrice"] = float(self.state)
        return page


@pytest.fixture
def shop() -> Iterator[Shop]:
    with Shop({"acme": 5 * PAGES}).running() as shop:
        yield shop  # type: ignore[misc]


def run(
    shop: Shop, folder: Path, search: od.ProductSearch = SEARCH, **settings: Any
) -> dg.ExecuteInProcessResult:
    shop.searches.clear()
    return dg.materialize(
        [od.build_products_asset("products", search, retry_policy=None)],
        resources={
            "octogen": octogen_at(shop, attempts=1),
            "io_manager": od.ParquetSnapshotIOManager(base_dir=str(folder), **settings),
        },
        raise_on_error=False,
    )


def die(shop: Shop, folder: Path, page: int = DIES_AT) -> None:
    shop.fails_at = page
    assert not run(shop, folder).success
    shop.fails_at = 0


def check(shop: Shop, folder: Path, *, price: float = 1.0) -> None:
    """Check that a snapshot is whole, of one state, and alone in its folder."""
    frame = pl.read_parquet(folder / "products.parquet")
    assert frame["uuid"].n_unique() == len(frame) == shop.catalogs["acme"]
    assert frame["current_price"].unique().to_list() == [price]
    assert [path.name for path in folder.iterdir()] == ["products.parquet"]


def segments(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*.pages") if path.is_file())


def test_with_a_stamp_only_the_missing_pages_are_requested(shop: Shop, tmp_path: Path) -> None:
    die(shop, tmp_path)
    assert run(shop, tmp_path).success
    assert shop.pages_of("acme") == [*range(DIES_AT, PAGES + 1)]
    check(shop, tmp_path)


@pytest.mark.slow
def test_a_folder_that_was_left_without_pages_is_gone_after_the_next_read(
    shop: Shop, tmp_path: Path
) -> None:
    (tmp_path / ".products.pages" / "of a killed run" / "none").mkdir(parents=True)
    assert run(shop, tmp_path).success
    assert not list(tmp_path.rglob("*.pages"))


def test_without_a_stamp_two_pages_are_compared(shop: Shop, tmp_path: Path) -> None:
    shop.indexed_at["acme"] = None
    die(shop, tmp_path)
    assert run(shop, tmp_path).success
    assert sorted(shop.pages_of("acme")) == [1, DIES_AT - 1, *range(DIES_AT, PAGES + 1)]
    check(shop, tmp_path)


@pytest.mark.slow
def test_without_a_stamp_a_page_that_changed_costs_all(shop: Shop, tmp_path: Path) -> None:
    shop.indexed_at["acme"] = None
    die(shop, tmp_path)
    shop.state = 2
    assert run(shop, tmp_path).success
    assert shop.pages_of("acme")[-PAGES:] == WHOLE
    check(shop, tmp_path, price=2.0)


@pytest.mark.slow
@pytest.mark.parametrize("status", [400, 410, 422])
def test_a_cursor_that_is_refused_costs_all(shop: Shop, tmp_path: Path, status: int) -> None:
    die(shop, tmp_path)
    shop.refusal = status
    assert run(shop, tmp_path).success
    assert shop.pages_of("acme") == WHOLE
    check(shop, tmp_path)


@pytest.mark.slow
def test_pages_of_another_search_or_service_are_not_used(shop: Shop, tmp_path: Path) -> None:
    die(shop, tmp_path)
    assert run(shop, tmp_path, SEARCH.model_copy(update={"q": "boots"})).success
    assert shop.pages_of("acme") == WHOLE
    with Shop({"acme": 5 * PAGES}).running() as other:
        assert run(other, tmp_path).success  # type: ignore[arg-type]
        assert other.pages_of("acme") == WHOLE


@pytest.mark.parametrize("hours", [5, 7])
def test_pages_are_continued_for_six_hours(shop: Shop, tmp_path: Path, hours: int) -> None:
    die(shop, tmp_path)
    ago = time.time() - hours * 3600
    for path in segments(tmp_path):
        os.utime(path, (ago, ago))
    assert run(shop, tmp_path).success
    assert len(shop.searches) == (PAGES - DIES_AT + 1 if hours == 5 else PAGES)
    check(shop, tmp_path)


@pytest.mark.slow
def test_with_0_hours_no_pages_are_continued_or_saved(shop: Shop, tmp_path: Path) -> None:
    die(shop, tmp_path)
    assert run(shop, tmp_path, resume_within_hours=0).success
    assert shop.pages_of("acme") == WHOLE
    check(shop, tmp_path)
    shop.fails_at = DIES_AT
    assert not run(shop, tmp_path, resume_within_hours=0).success
    assert not segments(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("place", [0, 2, -1], ids=["first", "middle", "last"])
def test_damage_costs_the_pages_from_there_on(shop: Shop, tmp_path: Path, place: int) -> None:
    die(shop, tmp_path)
    path = segments(tmp_path)[place]
    before = int(path.name.partition("-")[0])  # the pages before it
    path.write_bytes(path.read_bytes()[:-1])
    assert run(shop, tmp_path).success
    assert set(shop.pages_of("acme")) == {*range(before + 1, PAGES + 1)}
    check(shop, tmp_path)


@pytest.mark.slow
def test_pages_of_another_partition_are_not_continued(shop: Shop, tmp_path: Path) -> None:
    """Those of yesterday would be stored in the snapshot of today."""

    @dg.asset(partitions_def=dg.StaticPartitionsDefinition(["monday", "tuesday"]))
    def products(octogen: od.OctogenResource) -> Any:
        return octogen.scan(SEARCH)

    def pages(day: str) -> list[int]:
        shop.searches.clear()
        resources = stored(tmp_path, octogen_at(shop, attempts=1))
        dg.materialize([products], resources=resources, partition_key=day, raise_on_error=False)
        return shop.pages_of("acme")

    shop.fails_at = DIES_AT
    assert pages("monday") == WHOLE[:DIES_AT]
    shop.fails_at = 0
    assert pages("tuesday") == WHOLE
    assert pages("monday") == [*range(DIES_AT, PAGES + 1)], "and its own are still there"
