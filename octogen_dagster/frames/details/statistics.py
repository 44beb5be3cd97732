"""DetailStatistics: the statistics of the lookups of a details snapshot."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, cast

from octogen_dagster.frames.columns import FAILED, FOUND, GONE, MISMATCH
from octogen_dagster.frames.statistics import ReadStatistics

if TYPE_CHECKING:
    from collections.abc import Iterable

    import polars as pl

    from octogen_dagster.frames.details.rows import Batch
    from octogen_dagster.frames.reading import Figures


@dataclass
class DetailStatistics(ReadStatistics):
    """The statistics of an execution of a `DetailScan`, which has one row for each product.

    Attributes:
        products: Products in the product snapshot.
        found: Rows with the full view.
        gone: Rows of products that no granted catalog has any more.
        mismatched: Rows whose address leads to another product.
        failed: Rows whose lookup failed.
        carried_over: Rows taken from the previous details snapshot.
        oldest_lookup: The time of the oldest lookup.
        first_error: The error of the first failed lookup.
    """

    products: int = 0
    found: int = 0
    gone: int = 0
    mismatched: int = 0
    failed: int = 0
    carried_over: int = 0
    oldest_lookup: datetime | None = None
    first_error: str | None = None

    @property
    def looked_up(self) -> int:
        """Rows that were not carried over."""
        return self.rows - self.carried_over

    def add(self, frame: pl.DataFrame, batch: Batch) -> None:
        """Count the rows of a batch."""
        counts = Counter(frame.get_column("status"))
        self.rows += len(frame)
        self.found += counts[FOUND]
        self.gone += counts[GONE]
        self.mismatched += counts[MISMATCH]
        self.failed += counts[FAILED]
        self.carried_over += len(batch.carried)
        oldest = cast("datetime | None", frame["looked_up_at"].min())
        self.oldest_lookup = min(filter(None, (self.oldest_lookup, oldest)), default=None)
        self.first_error = self.first_error or next(iter(frame["error"].drop_nulls()), None)

    def received(self, begun: Iterable[Batch]) -> None:
        """Count what is known of the batches that are not finished, besides the finished rows."""
        results = sum(len(batch.carried) + len(batch.lookups.results) for batch in begun)
        self.received_rows = self.rows + results
        self.requests_left = self.products - self.received_rows

    def figures(self) -> Figures:
        """Return the figures by name."""
        return {
            "found": self.found,
            "gone": self.gone,
            "mismatched": self.mismatched,
            "failed": self.failed,
            "looked_up": self.looked_up,
            "carried_over": self.carried_over,
            **super().figures(),
            **self.cost_figures(self.prices.lookup_usd, self.carried_over),
        }

    def row_figures(self) -> Figures:
        """Return figures of the rows by name."""
        figures = {"oldest_lookup": self.oldest_lookup, "first_error": self.first_error}
        return {name: figure for name, figure in figures.items() if figure is not None}

    def progress(self, subject: str) -> str:
        """Return a line about the progress of the lookups.

        Args:
            subject: What is made, such as "octogen_products_details, partition 'acme'".
        """
        return (
            f"{subject}: {self.received_rows:,} of {self.products:,} products, "
            f"{self.cost(self.prices.lookup_usd)}{self.speed(self.products)}; "
            f"{self.found:,} found, {self.gone:,} gone, {self.failed:,} failed, "
            f"{self.carried_over:,} carried over"
        )
