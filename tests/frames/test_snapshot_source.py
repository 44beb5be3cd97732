"""A frame that is stored as it is, and the check that all of it was written."""

from __future__ import annotations

import polars as pl
import pytest

from octogen_dagster.errors import OctogenSnapshotError
from octogen_dagster.frames.snapshot_source import SnapshotSource, check_complete


class Incomplete(SnapshotSource):
    def incomplete_reason(self, rows: int) -> str | None:
        return f"{rows} rows were written of 9 read." if rows < 9 else None


def test_a_source_that_lost_rows_is_an_error_that_says_why() -> None:
    with pytest.raises(OctogenSnapshotError) as caught:
        check_complete(Incomplete(pl.LazyFrame()), 7, "/data/acme.parquet")
    assert str(caught.value) == (
        "The snapshot /data/acme.parquet is not complete: 7 rows were written of 9 read. Nothing "
        "was published; run it again."
    )


def test_a_complete_source_passes() -> None:
    check_complete(Incomplete(pl.LazyFrame()), 9, "/data/acme.parquet")


def test_a_plain_frame_is_complete_and_has_nothing_to_tell() -> None:
    frame = pl.LazyFrame({"a": [1]})
    source = SnapshotSource(frame)
    check_complete(source, 0, "/data/acme.parquet")
    assert source.frame is frame
    assert (source.provenance(), source.figures(), source.row_figures(frame)) == ({}, {}, {})
    assert not source.keeps_previous
