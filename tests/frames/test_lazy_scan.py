"""Rows that are made when a LazyFrame is executed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import polars as pl
import pytest

from octogen_dagster.api.cancellation import ClosedError
from octogen_dagster.frames.lazy_scan import Interval, LazyScan

SCHEMA = pl.Schema({"number": pl.Int64(), "text": pl.String(), "other": pl.Int64()})


class Numbers(LazyScan):
    """Two frames of three rows each."""

    def __init__(self) -> None:
        self.arguments: list[tuple[set[str], bool, int | None]] = []
        super().__init__(SCHEMA)

    def _frames(
        self, columns: set[str], predicate: pl.Expr | None, n_rows: int | None
    ) -> Iterator[pl.DataFrame]:
        self.arguments.append((columns, predicate is not None, n_rows))
        left = 6 if n_rows is None else n_rows
        for begin in (0, 3):
            self._scope.check()
            numbers = list(range(begin, begin + 3))
            frame = pl.DataFrame(
                {"number": numbers, "text": map(str, numbers), "other": numbers}, schema=SCHEMA
            ).head(left)
            left -= len(frame)
            yield frame


ENGINES = pytest.mark.parametrize("engine", ["in-memory", "streaming"])


@ENGINES
def test_all_columns_of_all_rows(engine: Any) -> None:
    scan = Numbers()
    frame = scan.frame.collect(engine=engine)
    assert frame["number"].to_list() == [0, 1, 2, 3, 4, 5]
    assert frame.schema == SCHEMA


@ENGINES
def test_only_the_columns_that_a_query_needs_are_asked_for(engine: Any) -> None:
    scan = Numbers()
    query = scan.frame.filter(pl.col("number") > 3).select("text")
    assert query.collect(engine=engine)["text"].to_list() == ["4", "5"]
    assert scan.arguments == [({"number", "text"}, True, None)]


@ENGINES
def test_head_asks_for_so_many_rows(engine: Any) -> None:
    scan = Numbers()
    assert scan.frame.head(4).collect(engine=engine)["number"].to_list() == [0, 1, 2, 3]
    assert [n_rows for _, _, n_rows in scan.arguments] == [4]


@ENGINES
def test_a_query_without_columns_counts_rows(engine: Any) -> None:
    assert Numbers().frame.select(pl.len()).collect(engine=engine).item() == 6


def test_stop_ends_the_execution_that_is_under_way_and_later_ones() -> None:
    scan = Numbers()
    frames = scan._read(None, None, None, None)
    assert len(next(frames)) == 3
    scan.stop()
    with pytest.raises(ClosedError):
        next(frames)
    with pytest.raises(ClosedError):
        scan.frame.collect()


def test_an_interval_calls_no_sooner_than_its_time_after_the_last_call() -> None:
    times = [100.0]
    calls: list[float] = []
    interval = Interval(lambda: calls.append(times[-1]), 10.0, clock=lambda: times[-1])
    for time in (100.0, 109.9, 110.0, 119.9, 125.0, 134.9, 135.0):
        times.append(time)
        interval()
    assert calls == [110.0, 125.0, 135.0]
