"""SnapshotSource: a frame that can be stored as a snapshot. The storing is not here."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from octogen_dagster.errors import OctogenShrunkenSnapshotError, OctogenSnapshotError

if TYPE_CHECKING:
    from datetime import datetime

    import polars as pl

    from octogen_dagster.api.spending import Spending
    from octogen_dagster.frames.pages.store import PageStore
    from octogen_dagster.frames.statistics import Figures

ROW_GROUP_SIZE = 20_000
MIN_ROWS_RATIO = 0.5
"""The smallest snapshot of whole catalogs that is published by default."""
CATALOGS = "octogen.catalogs"
"""The provenance of a snapshot that says which catalogs were read, if that is known."""
ROWS = "octogen.rows"
"""The provenance of a snapshot that says how many rows it has."""
ROWS_PER_PRODUCT = "octogen.rows_per_product"
"""The provenance of whole catalogs that says how many rows came for each product of the source."""


class SnapshotPlace(Protocol):
    """The place where a snapshot will be stored."""

    def page_store(self, clock: Callable[[], datetime]) -> PageStore:
        """Return the page store beside the snapshot.

        Args:
            clock: Returns the present time, in UTC.
        """

    def latest(self) -> pl.LazyFrame | None:
        """Return the present snapshot, else the latest of an earlier time; None without any."""

    def latest_provenance(self) -> Mapping[str, str]:
        """Return the provenance of what `latest` returns; empty without a usable one."""

    def log(self, line: str) -> None:
        """Log a line for the user."""

    def warn(self, line: str) -> None:
        """Log a line for the user as a warning."""


class SnapshotSource:
    """A frame that is executed once and stored.

    Args:
        frame: The rows.

    Attributes:
        frame: The rows.
        row_group_size: The number of rows in a row group; so many are held in memory.
        keeps_previous: True if the previous snapshot is kept when this one is published.
        min_rows_ratio: The smallest number of rows to publish, as a share of the rows of the
            snapshot that is replaced; with 0 any number is published, and otherwise at least one.
        shrinking_causes: What may have made a snapshot smaller than `min_rows_ratio` allows, for
            the error message.
    """

    row_group_size = ROW_GROUP_SIZE
    keeps_previous = False
    min_rows_ratio = 0.0
    shrinking_causes = ""

    def __init__(self, frame: pl.LazyFrame) -> None:
        self.frame = frame

    @contextmanager
    def opened(self, place: SnapshotPlace) -> Iterator[None]:
        """Let the source use files beside the snapshot while the block runs.

        Args:
            place: The place where the snapshot will be stored.
        """
        yield

    def stop(self) -> None:
        """End the current execution, if possible; it raises where it runs."""

    def incomplete_reason(self, rows: int) -> str | None:
        """Say why the execution was not complete; None if it was.

        Args:
            rows: The number of rows that were written.
        """
        return None

    @property
    def spending(self) -> Spending | None:
        """What the execution counts its costs in; None if it costs nothing."""
        return None

    def provenance(self) -> dict[str, str]:
        """Return facts for the metadata of the file; call it after the execution."""
        return {}

    def figures(self) -> Figures:
        """Return figures of the execution by name; call it after the execution."""
        return {}

    def row_figures(self, snapshot: pl.LazyFrame) -> Figures:
        """Return figures of the rows by name.

        Args:
            snapshot: The rows as they were written.
        """
        return {}

    def remove_saved_pages(self) -> None:
        """Remove the saved pages that are not needed after the snapshot was published.

        Raises:
            OctogenSnapshotError: The pages cannot be removed.
        """


def check_complete(source: SnapshotSource, rows: int, uri: str) -> None:
    """Check that a written file holds all rows of its source.

    Args:
        source: The source.
        rows: The number of rows in the file.
        uri: The URI of the snapshot, for the error message.

    Raises:
        OctogenSnapshotError: Rows are missing.
    """
    if reason := source.incomplete_reason(rows):
        raise OctogenSnapshotError(
            f"The snapshot {uri} is not complete: {reason} Nothing was published; run it again."
        )


def check_not_shrunken(source: SnapshotSource, rows: int, replaced: int, uri: str) -> None:
    """Check that a snapshot did not lose most of its rows.

    Args:
        source: The source.
        rows: The number of rows in the new file.
        replaced: The number of rows of the snapshot that it replaces; 0 without any.
        uri: The URI of the snapshot, for the error message.

    Raises:
        OctogenShrunkenSnapshotError: There are no rows, or too few for `min_rows_ratio`.
    """
    ratio = source.min_rows_ratio
    if not ratio or rows >= max(1, ratio * replaced):
        return
    there = f", and the latest snapshot has {replaced:,}" if replaced else ""
    raise OctogenShrunkenSnapshotError(
        f"The snapshot {uri} was not published: the service sent {rows or 'no'} products{there} "
        f"(min_rows_ratio is {ratio:g}). Nothing was changed. Likely causes: "
        f"{source.shrinking_causes}. If the number is right, accept it for one run with "
        "`accept_shrinking: true` in the launchpad; min_rows_ratio of the asset or of the scan "
        "sets the limit for all runs."
    )
