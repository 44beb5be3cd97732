"""The rows of a read plan: each product once, up to a cap, and complete."""

from __future__ import annotations

from datetime import datetime, timezone

import polars as pl
import pytest

from octogen_dagster.api.blocking import BlockingClient
from octogen_dagster.api.catalog_sources import CatalogService
from octogen_dagster.api.search import ProductSearch
from octogen_dagster.frames.catalog_read import CatalogRead
from octogen_dagster.frames.columns import PRODUCT_SCHEMA
from octogen_dagster.frames.execution import Execution
from octogen_dagster.frames.plan import PlannedCatalog
from octogen_dagster.frames.read_plan import ReadPlan
from tests.frames.scripted import ScriptedCatalog, page

STARTED_AT = datetime(2026, 11, 25, 6, 0, tzinfo=timezone.utc)
SEARCH = ProductSearch(page_size=2)


def plan(*catalogs: str) -> ReadPlan:
    planned = [PlannedCatalog(key, SEARCH.request(key)) for key in catalogs or ("acme",)]
    return ReadPlan(SEARCH, [CatalogRead(catalog) for catalog in planned], STARTED_AT)


def execution(connection: CatalogService, cap: int | None = None, *catalogs: str) -> Execution:
    return Execution(
        plan(*catalogs), connection, BlockingClient(connection), {"uuid", "fetched_at"}, cap=cap
    )


def rows(running: Execution) -> pl.DataFrame:
    return pl.concat(running.frames(lambda: None))


def test_a_whole_plan_brings_every_product(connection: CatalogService) -> None:
    running = execution(connection)
    frame = rows(running)
    assert frame.schema == {name: PRODUCT_SCHEMA[name] for name in ("uuid", "fetched_at")}
    assert frame["uuid"].to_list() == ["p1", "q1", "p2", "q2", "p3", "q3", "p4", "q4"]
    assert set(frame["fetched_at"]) == {STARTED_AT}
    statistics = running.statistics
    assert (statistics.rows, statistics.pages, statistics.requests) == (8, 4, 4)
    assert statistics.complete
    assert not statistics.truncated
    assert statistics.catalogs == ["acme"]


def test_a_product_that_comes_again_is_removed(
    scripted: ScriptedCatalog, connection: CatalogService
) -> None:
    scripted.contents["c3"] = page("p3", "p1", "p3", next_cursor="c4")
    running = execution(connection)
    assert rows(running)["uuid"].to_list() == ["p1", "q1", "p2", "q2", "p3", "p4", "q4"]
    assert (running.statistics.rows, running.statistics.repeats) == (7, 2)


def test_the_same_product_of_two_catalogs_is_a_row_of_each(connection: CatalogService) -> None:
    running = execution(connection, None, "acme", "zen")
    assert rows(running)["uuid"].value_counts()["count"].to_list() == [2] * 8
    assert running.statistics.repeats == 0


@pytest.mark.parametrize(
    ("cap", "pages", "truncated"),
    [(1, 1, True), (2, 1, True), (3, 2, True), (7, 4, True), (8, 4, False), (9, 4, False)],
)
def test_a_cap_requests_no_page_that_it_does_not_need(
    scripted: ScriptedCatalog, connection: CatalogService, cap: int, pages: int, truncated: bool
) -> None:
    running = execution(connection, cap)
    assert len(rows(running)) == min(cap, 8)
    assert len(scripted.cursors) == pages
    assert running.statistics.truncated is truncated
    assert running.statistics.complete


def test_a_cap_that_the_first_catalog_fills_leaves_the_second_unread(
    scripted: ScriptedCatalog, connection: CatalogService
) -> None:
    running = execution(connection, 8, "acme", "zen")
    assert len(rows(running)) == 8
    assert running.statistics.truncated
    assert len(scripted.cursors) == 4


def test_a_cap_of_nothing_requests_nothing(
    scripted: ScriptedCatalog, connection: CatalogService
) -> None:
    assert rows(execution(connection, 0)).is_empty()
    assert scripted.cursors == []


def test_each_frame_is_reported(connection: CatalogService) -> None:
    reported: list[int] = []
    running = execution(connection)

    def report() -> None:
        running.add_up()
        reported.append(running.statistics.requests)

    frames = running.frames(report)
    assert sum(len(frame) for frame in frames) == 8
    assert reported[-1] == 4
