"""ReadPlan: the reads of the catalogs of a search."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from octogen_dagster.api.estimate import estimate_pages

if TYPE_CHECKING:
    from datetime import datetime

    from octogen_dagster.api.catalog_sources import CatalogService
    from octogen_dagster.api.search import ProductSearch
    from octogen_dagster.frames.catalog_read import CatalogRead
    from octogen_dagster.frames.pages.saved_read import SavedRead
    from octogen_dagster.frames.plan import PlannedCatalog


@dataclass(frozen=True)
class ReadPlan:
    """The plan of one read of a search.

    Attributes:
        search: The search.
        reads: The reads of its catalogs, in order.
        started_at: When the read began; if it continues another read, when that one began.
        saved_read: The folder of its saved pages; None if pages are not saved.
        continued: Names of the saved reads whose pages it takes over.
        superseded: Names of all saved reads of the same search.
    """

    search: ProductSearch
    reads: list[CatalogRead]
    started_at: datetime
    saved_read: SavedRead | None = None
    continued: frozenset[str] = frozenset()
    superseded: frozenset[str] = frozenset()

    def estimate(self, service: CatalogService) -> str | None:
        """Say what the requests of the read take; None if its size is not known.

        Args:
            service: The service, with the prices.
        """
        if not self.reads or self.expected_rows is None:
            return None
        counts = [planned.expected_rows or 0 for planned in self._catalogs.values()]
        catalog = next(iter(self._catalogs))
        subject = f"Catalog {catalog!r}" if len(counts) == 1 else f"{len(counts):,} catalogs"
        saved = sum(read.saved_pages for read in self.reads)
        estimate = estimate_pages(counts, self.search.page_size, service, saved_pages=saved)
        more = f"; {saved:,} more pages are saved" if saved else ""
        return f"{subject}: {estimate}{more}."

    @property
    def expected_rows(self) -> int | None:
        """The number of rows of all catalogs; None if it is not known or not all are read."""
        rows = [planned.expected_rows for planned in self._catalogs.values()]
        known = [each for each in rows if each is not None]
        is_known = self.search.reads_whole_catalogs and len(known) == len(rows)
        return sum(known) if is_known else None

    @property
    def rows_per_product(self) -> float | None:
        """`expected_rows` for each product of the sources; None if a catalog was never read."""
        expected, products = self.expected_rows, sum(self.product_counts.values())
        known = [planned.rows_per_product is not None for planned in self._catalogs.values()]
        return expected / products if expected and products and all(known) else None

    @property
    def product_counts(self) -> dict[str, int]:
        """The number of products of each catalog by its source, where it is known."""
        return {
            key: planned.product_count
            for key, planned in self._catalogs.items()
            if key and planned.product_count is not None
        }

    @property
    def _catalogs(self) -> dict[str | None, PlannedCatalog]:
        """One walk of each catalog, which may be read in several."""
        return {read.planned.catalog: read.planned for read in self.reads}
