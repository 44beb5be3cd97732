"""A scan of the service: when it is complete, and what stops it."""

from __future__ import annotations

from collections.abc import Iterator

import polars as pl
import pytest

from octogen_dagster.api.cancellation import ClosedError
from octogen_dagster.frames.service_scan import ServiceScan
from octogen_dagster.frames.statistics import ReadStatistics
from tests.frames.scripted import connection_at

SCHEMA = pl.Schema({"number": pl.Int64()})


class Numbers(ServiceScan):
    """Two frames of three rows each."""

    def __init__(self) -> None:
        self.connection = connection_at("http://127.0.0.1:1/v1")
        self.statistics = ReadStatistics()
        super().__init__(SCHEMA)

    def _frames(
        self, _columns: set[str], _predicate: pl.Expr | None, _n_rows: int | None
    ) -> Iterator[pl.DataFrame]:
        self.statistics = ReadStatistics()
        connection = self._own_connection()
        for _ in range(2):
            connection.scope.check()
            self.statistics.rows += 3
            yield pl.DataFrame({"number": [1, 2, 3]}, schema=SCHEMA)
        self.statistics.complete = True


def test_an_execution_is_complete_if_all_its_rows_were_written() -> None:
    scan = Numbers()
    assert scan.incomplete_reason(0) is not None
    scan.frame.collect()
    assert scan.incomplete_reason(6) is None
    assert scan.incomplete_reason(5) == "5 rows were written of 6 read."


def test_stop_ends_the_requests_of_the_execution() -> None:
    scan = Numbers()
    frames = scan._read(None, None, None, None)
    assert len(next(frames)) == 3
    scan.stop()
    with pytest.raises(ClosedError):
        next(frames)
    assert scan.incomplete_reason(3) == "3 rows were written of 3 read."
