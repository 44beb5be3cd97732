"""The numbers of the lookups of a details snapshot, and of its rows."""

from __future__ import annotations

from datetime import timedelta

import polars as pl

from octogen_dagster.api.spending import Prices
from octogen_dagster.frames.columns import DETAIL_SCHEMA
from octogen_dagster.frames.details.lookups import Lookups
from octogen_dagster.frames.details.rows import Batch
from octogen_dagster.frames.details.statistics import DetailStatistics
from tests.frames.details.made_up import LOOKED_UP_AT


def batch(carried: int) -> Batch:
    return Batch(pl.DataFrame({"row": range(carried)}), pl.DataFrame(), Lookups([]))


def frame(statuses: list[str]) -> pl.DataFrame:
    return pl.DataFrame([{"status": each} for each in statuses], schema=DETAIL_SCHEMA)


def test_the_rows_of_batches_are_counted_by_their_status() -> None:
    statistics = DetailStatistics()
    statuses = ["found"] * 4 + ["gone"] * 3 + ["mismatch"] * 2 + ["failed"]
    statistics.add(frame(statuses), batch(carried=1))
    statistics.add(frame(["found", "gone"]), batch(carried=1))
    assert (statistics.rows, statistics.found, statistics.gone) == (12, 5, 4)
    assert (statistics.mismatched, statistics.failed) == (2, 1)
    assert (statistics.carried_over, statistics.looked_up) == (2, 10)


def test_the_figures_have_the_counts_and_the_requests() -> None:
    figures = DetailStatistics(
        rows=10, found=6, gone=2, mismatched=1, failed=1, carried_over=4, requests=9
    ).figures()
    assert list(figures.items())[:7] == [
        ("found", 6),
        ("gone", 2),
        ("mismatched", 1),
        ("failed", 1),
        ("looked_up", 6),
        ("carried_over", 4),
        ("requests", 9),
    ]


def test_the_costs_are_those_of_lookups() -> None:
    prices = Prices(search_page_usd=0, lookup_usd=0.5)
    figures = DetailStatistics(rows=8, carried_over=6, cost_usd=1.0, prices=prices).figures()
    assert (figures["cost_usd"], figures["cost_saved_usd"]) == (1.0, 3.0)
    assert figures["cost_usd_per_1000_products"] == 125.0


def test_a_progress_line_says_what_came_and_what_it_cost() -> None:
    statistics = DetailStatistics(
        products=30,
        received_rows=20,
        found=16,
        gone=2,
        carried_over=4,
        seconds=2.0,
        requests_left=10,
        cost_usd=0.032,
    )
    assert statistics.progress("details") == (
        "details: 20 of 30 products, $0.032 of about $0.052, 10 a second, about 1 s left; "
        "16 found, 2 gone, 0 failed, 4 carried over"
    )


def test_the_oldest_lookup_and_the_first_error_of_a_snapshot() -> None:
    rows = [
        {"looked_up_at": LOOKED_UP_AT, "error": None},
        {"looked_up_at": LOOKED_UP_AT - timedelta(days=1), "error": "first"},
        {"looked_up_at": None, "error": "second"},
    ]
    statistics = DetailStatistics()
    assert statistics.row_figures() == {}
    for row in rows:
        statistics.add(pl.DataFrame([row], schema=DETAIL_SCHEMA), batch(carried=0))
    assert statistics.row_figures() == {
        "oldest_lookup": LOOKED_UP_AT - timedelta(days=1),
        "first_error": "first",
    }
