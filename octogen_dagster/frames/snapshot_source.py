"""SnapshotSource: what can be stored as a snapshot. How it is stored is not here."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from octogen_dagster.errors import OctogenSnapshotError

if TYPE_CHECKING:
    from datetime import datetime

    import polars as pl

    from octogen_dagster.frames.pages.store import PageStore
    from octogen_dagster.frames.statistics import Figures

ROW_GROUP_SIZE = 20_000


class SnapshotPlace(Protocol):
    """The place where a snapshot will be stored."""

    def page_store(self, clock: Callable[[], datetime]) -> PageStore:
        """The saved pages beside it.

        Args:
            clock: Returns the present time.
        """

    def latest(self) -> pl.LazyFrame | None:
        """The snapshot that is there, or the last one of a time before."""

    def log(self, line: str) -> None:
        """Tell the user what was decided."""


class SnapshotSource:
    """A frame that is executed once and stored.

    Args:
        frame: The rows.

    Attributes:
        frame: The rows.
        row_group_size: Rows of a row group; so many are held in memory.
        keeps_previous: True if the snapshot before is wanted after this one is published.
    """

    row_group_size = ROW_GROUP_SIZE
    keeps_previous = False

    def __init__(self, frame: pl.LazyFrame) -> None:
        self.frame = frame

    @contextmanager
    def opened(self, place: SnapshotPlace) -> Iterator[None]:
        """Use what is stored beside the snapshot while the block runs.

        Args:
            place: Where the snapshot will be stored.
        """
        yield

    def stop(self) -> None:
        """End the execution that is under way, if it can be ended; it raises where it runs."""

    def incomplete_reason(self, rows: int) -> str | None:
        """Why the execution was not complete; None if it was.

        Args:
            rows: Rows that were written.
        """
        return None

    @property
    def rebuilt_from(self) -> datetime | None:
        """When the rows were read that this snapshot is rebuilt from; None if it is not."""
        return None

    def provenance(self) -> dict[str, str]:
        """Facts for the file's metadata, known after the execution."""
        return {}

    def figures(self, snapshot: pl.LazyFrame) -> Figures:
        """Facts about the execution.

        Args:
            snapshot: The rows, as they were written.
        """
        return {}

    def archive_pages(self) -> None:
        """Archive the pages that the snapshot was made of, before it is published.

        Raises:
            OctogenSnapshotError: They cannot be archived.
        """

    def remove_saved_pages(self) -> None:
        """Remove the saved pages that are not needed after the snapshot was published.

        Raises:
            OctogenSnapshotError: They cannot be removed.
        """


def check_complete(source: SnapshotSource, rows: int, uri: str) -> None:
    """Check that a written file holds all rows of its source.

    Args:
        source: The source.
        rows: Rows in the file.
        uri: The snapshot's place, for the error message.

    Raises:
        OctogenSnapshotError: It does not.
    """
    if reason := source.incomplete_reason(rows):
        raise OctogenSnapshotError(
            f"The snapshot {uri} is not complete: {reason} Nothing was published; run it again."
        )
