"""When lookups end all others, and what the statistics of details say."""

from __future__ import annotations

from collections import Counter
from datetime import datetime, timedelta, timezone

import polars as pl
import pytest

from octogen_dagster.errors import OctogenSnapshotError
from octogen_dagster.frames.columns import DETAIL_SCHEMA
from octogen_dagster.frames.details import MAX_FAILURES_IN_A_ROW, DetailStatistics, _FailureLimit

AT = datetime(2026, 11, 25, 6, 0, tzinfo=timezone.utc)


def note(limit: _FailureLimit, *statuses: str) -> None:
    for status in statuses:
        limit.note({"status": status, "error": f"It is {status}."})


@pytest.mark.parametrize(
    ("share", "total", "allowed"),
    [(0.0, 100, 0), (0.05, 60, 3), (0.29, 100, 29), (0.07, 100, 7), (1.0, 10, 10)],
)
def test_as_many_may_fail_as_the_share_says(share: float, total: int, allowed: int) -> None:
    limit = _FailureLimit(share, total)
    note(limit, *["failed"] * allowed, "gone", "found", "mismatch")
    with pytest.raises(OctogenSnapshotError, match=rf"^More than {100 * share:g} % .*It is failed"):
        note(limit, "failed")


def test_failures_in_a_row_end_it_whatever_the_share() -> None:
    limit = _FailureLimit(1, 10_000)
    for other in ("found", "gone", "mismatch"):
        note(limit, *["failed"] * (MAX_FAILURES_IN_A_ROW - 1), other)
    note(limit, *["failed"] * (MAX_FAILURES_IN_A_ROW - 1))
    with pytest.raises(OctogenSnapshotError, match="in a row failed, retries included; the last: "):
        note(limit, "failed")


def test_rows_are_counted_as_they_pass() -> None:
    statuses = ["found"] * 4 + ["gone"] * 3 + ["mismatch"] * 2 + ["failed"]
    rows = [
        {"status": status, "looked_up_at": AT + timedelta(days=number), "error": None}
        for number, status in enumerate(statuses)
    ]
    rows[-1]["error"] = "first"
    statistics = DetailStatistics(products=20)
    assert statistics.row_figures() == {}
    statistics.add(pl.DataFrame(rows[:2], schema=DETAIL_SCHEMA), carried_over=True)
    statistics.add(pl.DataFrame(rows[2:], schema=DETAIL_SCHEMA))
    statistics.add(DETAIL_SCHEMA.to_frame())
    statistics.received(3)
    assert (statistics.received_rows, statistics.requests_left) == (13, 7)
    figures = statistics.figures()
    assert list(figures.items())[:6] == [
        ("found", 4),
        ("gone", 3),
        ("mismatched", 2),
        ("failed", 1),
        ("looked_up", 8),
        ("carried_over", 2),
    ]
    assert statistics.row_figures() == {"oldest_lookup": AT, "first_error": "first"}


def test_a_progress_line_says_what_came_and_what_it_cost() -> None:
    statistics = DetailStatistics(
        products=30,
        received_rows=20,
        by_status=Counter(found=16, gone=2),
        carried_over=4,
        seconds=2.0,
        requests_left=10,
        cost_usd=0.032,
    )
    assert statistics.progress("details") == (
        "details: 20 of 30 products, $0.032 of about $0.052, 10 a second, about 1 s left; "
        "16 found, 2 gone, 0 failed, 4 carried over"
    )
