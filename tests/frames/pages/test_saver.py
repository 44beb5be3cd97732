"""How pages are saved while others are read."""

from __future__ import annotations

import polars as pl
import pytest

from octogen_dagster.errors import OctogenSnapshotError
from octogen_dagster.frames.pages.saved_read import SavedRead
from octogen_dagster.frames.pages.saver import PAGES_PER_SEGMENT
from octogen_dagster.frames.pages.segments import Segment, SegmentName
from tests.frames.pages.reads import Reads


def test_pages_after_a_segment_that_was_not_written_are_not_joined_to_those_before_it(
    reads: Reads, undisturbed: pl.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, written = SavedRead.write, []

    def fails_once(read: SavedRead, catalog: int, number: int, segment: Segment) -> SegmentName:
        written.append(number)
        if len(written) == 2:
            raise OctogenSnapshotError("The disk is full.")
        return write(read, catalog, number, segment)

    monkeypatch.setattr(SavedRead, "write", fails_once)
    reads.read(publish=False)
    frames: list[pl.DataFrame] = []
    requested = reads.pages_requested(lambda: frames.append(reads.read()))
    assert requested == reads.rest(PAGES_PER_SEGMENT)
    assert frames[0].drop("fetched_at").equals(undisturbed)
    assert not reads.folder.exists()


def test_a_read_that_fails_loses_none_of_its_pages(reads: Reads) -> None:
    reads.interrupted(PAGES_PER_SEGMENT + 3)
    (whole, rest) = reads.segments()
    counts = [len(Segment.decoded(path.read_bytes()).pages) for path in (whole, rest)]
    assert counts == [PAGES_PER_SEGMENT, 2]
