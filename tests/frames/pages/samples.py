"""Small records and segments for tests that need no service."""

from __future__ import annotations

from datetime import datetime, timezone

from octogen_dagster.frames.pages.records import ReadRecord, SavedCatalog
from octogen_dagster.frames.pages.segments import Segment
from tests.frames.products import wire_page

STARTED_AT = datetime(2026, 11, 25, 6, 0, tzinfo=timezone.utc)


def read_record(*catalogs: str) -> ReadRecord:
    """The record of a read of some catalogs; of "acme" by default."""
    return ReadRecord(
        base_url="https://api.example/v1",
        search={"page_size": 2},
        catalogs=[SavedCatalog(catalog) for catalog in catalogs or ("acme",)],
        started_at=STARTED_AT,
    )


def segment(*uuids: str, next_cursor: str | None = None) -> Segment:
    """A segment with one page of products."""
    return Segment("seed", [wire_page(*uuids, next_cursor=next_cursor)])
