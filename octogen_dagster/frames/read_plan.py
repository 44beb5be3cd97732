"""ReadPlan: the reads of the catalogs of a search."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime

    from octogen_dagster.frames.catalog_read import CatalogRead
    from octogen_dagster.frames.pages.saved_read import SavedRead
    from octogen_dagster.frames.search import ProductSearch


@dataclass(frozen=True)
class ReadPlan:
    """The plan of one read of a search.

    Attributes:
        search: The search; for a rebuild, the search of the archived pages.
        reads: The reads of its catalogs, in order.
        started_at: When the read began; if it continues another read, when that one began.
        saved_read: The folder of its saved pages; None if pages are not saved.
        rebuilt: True if all pages are archived ones.
        continued: Names of the saved reads whose pages it takes over.
        superseded: Names of all saved reads of the same search.
    """

    search: ProductSearch
    reads: list[CatalogRead]
    started_at: datetime
    saved_read: SavedRead | None = None
    rebuilt: bool = False
    continued: frozenset[str] = frozenset()
    superseded: frozenset[str] = frozenset()

    @property
    def expected_rows(self) -> int | None:
        """The number of products in all catalogs; None if it is not known or not all are read."""
        counts = [read.planned.product_count for read in self.reads]
        known = [count for count in counts if count is not None]
        is_known = self.search.reads_whole_catalogs and len(known) == len(counts)
        return sum(known) if is_known else None
