"""A frame that occurs more than once in a query is read, and paid for, once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest

from octogen_dagster import OctogenResource, ProductSearch
from tests.projects import Project
from tests.promises.paged_service import PagedService
from tests.results import octogen_at, scan

SEARCH = ProductSearch(catalogs=["acme"])


@pytest.fixture
def service() -> Iterator[PagedService]:
    with PagedService({"acme": 250, "zen": 100}).running() as service:
        yield service


def products(service: PagedService, search: ProductSearch = SEARCH) -> pl.LazyFrame:
    return scan(service, search)


def with_the_mean_of_its_price(frame: pl.LazyFrame) -> pl.LazyFrame:
    mean = frame.group_by("current_price").agg(pl.len().alias("as_dear"))
    return frame.join(mean, on="current_price")


@pytest.mark.parametrize("engine", ["in-memory", "streaming", "auto"])
@pytest.mark.parametrize(
    ("query", "rows"),
    [
        (with_the_mean_of_its_price, 250),
        (lambda frame: pl.concat([frame, frame]), 500),
        (lambda frame: pl.concat([frame, frame.filter(pl.col("current_price") < 50)]), 400),
        (lambda frame: with_the_mean_of_its_price(frame.filter(pl.col("uuid") != "acme-0")), 249),
        (lambda frame: with_the_mean_of_its_price(frame).filter(pl.col("as_dear") == 3), 150),
    ],
    ids=["join", "concat", "filter", "join of a filter", "filter of a join"],
)
def test_a_query_reads_a_frame_once(
    service: PagedService, query: Callable[[pl.LazyFrame], pl.LazyFrame], rows: int, engine: Any
) -> None:
    assert query(products(service)).collect(engine=engine).height == rows
    assert service.pages_of("acme") == [1, 2, 3]


def test_queries_that_are_collected_together_read_a_frame_once(service: PagedService) -> None:
    frame = products(service)
    count, dearest = pl.collect_all([frame.select(pl.len()), frame.select("current_price").max()])
    assert (count.item(), dearest.item()) == (250, 99.0)
    assert service.pages_of("acme") == [1, 2, 3]


def test_a_file_is_written_from_one_read(service: PagedService, tmp_path: Path) -> None:
    with_the_mean_of_its_price(products(service)).sink_parquet(tmp_path / "products.parquet")
    assert pl.read_parquet(tmp_path / "products.parquet").height == 250
    assert service.pages_of("acme") == [1, 2, 3]


def test_a_snapshot_of_a_query_is_read_once(project: Project, service: PagedService) -> None:
    @dg.asset
    def compared(octogen: OctogenResource) -> pl.LazyFrame:
        return with_the_mean_of_its_price(octogen.scan(SEARCH).frame)

    project.run([compared], octogen_at(service))
    assert project.read("compared").height == 250
    assert service.pages_of("acme") == [1, 2, 3]


def test_each_collect_reads_anew(service: PagedService) -> None:
    frame = products(service)
    assert frame.collect().height == 250
    service.catalogs["acme"] = 150
    assert frame.collect().height == 150
    assert service.pages_of("acme") == [1, 2, 3, 1, 2]


def test_two_frames_of_a_search_are_two_reads(service: PagedService) -> None:
    assert pl.concat([products(service), products(service)]).collect().height == 500
    assert sorted(service.pages_of("acme")) == [1, 1, 2, 2, 3, 3]


def test_what_a_query_needs_is_still_all_that_is_read(service: PagedService) -> None:
    frame = products(service, ProductSearch())
    assert frame.head(5).collect().height == 5
    assert len(service.searches) == 1
    zen = frame.filter(pl.col("catalog_key") == "zen")
    assert zen.select("uuid").collect().height == 100
    assert pl.concat([zen, zen]).collect().height == 200
    assert service.pages_of("zen") == [1, 1]
