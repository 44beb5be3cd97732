from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import polars as pl
from polars.io.plugins import register_io_source

from octogen_dagster.files import remove_abandoned
from octogen_dagster.store import MAX_WRITE_SECONDS, write_parquet


def test_a_writer_that_waits_for_its_rows_is_not_taken_for_dead(tmp_path: Path) -> None:
    """A file grows only by whole row groups, which may take longer than an hour."""
    unfinished = tmp_path / ".made.parquet.0.unfinished"
    unfinished.touch()

    def rows(*_: object) -> Iterator[pl.DataFrame]:
        os.utime(unfinished, (0, 0))
        deadline = time.monotonic() + 30
        while not unfinished.stat().st_mtime:
            assert time.monotonic() < deadline, "the writer shows no sign of life"
        remove_abandoned(tmp_path / "made.parquet", MAX_WRITE_SECONDS)
        yield pl.DataFrame({"n": [1]})

    frame = register_io_source(rows, schema={"n": pl.Int64})
    assert write_parquet(frame, unfinished, dict, lambda: None) == 1
