"""ReadPlan: how a search is read, catalog by catalog."""

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
    """How a search is read.

    Attributes:
        search: The search; that of the archived pages if it is rebuilt.
        reads: Its catalogs, in order.
        started_at: When the read began, or the one that it continues.
        saved_read: Where its pages are saved, if they are.
        rebuilt: True if every page is an archived one.
        continued: Names of the saved reads whose pages it took over.
        superseded: Names of the saved reads of the same search, `continued` included.
    """

    search: ProductSearch
    reads: list[CatalogRead]
    started_at: datetime
    saved_read: SavedRead | None = None
    rebuilt: bool = False
    continued: frozenset[str] = frozenset()
    superseded: frozenset[str] = frozenset()
