"""One walk through the pages of a search: cursors, loops, restarts, repeats. No I/O.

The service restarts silently at page 1 on a cursor it does not know, can send a product on two
pages, and never says how many pages there are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeVar

from octogen_dagster.errors import OctogenPagingError

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_RESTARTS = 2
SPARE_BARREN_PAGES = 10
_ENOUGH_TO_TELL = 10  # products on page 1: of few, some may come again by chance


class Page(Protocol):
    """What a walk needs to know of a page."""

    @property
    def uuids(self) -> Sequence[str]:
        """The products on it, in order."""

    @property
    def next_cursor(self) -> str | None:
        """What to ask the next page with; none on the last one."""


PageT = TypeVar("PageT", bound=Page)


class PageTracker:
    """What one walk knows of the pages it has seen.

    Args:
        subject: What is being read, to begin error messages with: "Catalog 'acme'".

    Attributes:
        pages: Pages seen.
        restarts: How often page 1 came back for a later cursor.
        may_have_restarted: Whether a later page brought most of page 1: it may be a page 1 that
            has changed, or what else the search found best.
        repeats: Products that came again and were removed.
    """

    def __init__(self, subject: str) -> None:
        self.subject = subject
        self.pages = 0
        self.restarts = 0
        self.may_have_restarted = False
        self.repeats = 0
        self._used: dict[str, int] = {}
        self._first: tuple[Sequence[str], str | None] = ((), None)
        self._first_products: frozenset[str] = frozenset()
        self._counted = 0
        self._barren = 0
        self._barren_in_a_row = 0

    def page_received(self, uuids: Sequence[str], next_cursor: str | None) -> None:
        """Note the next page.

        Args:
            uuids: Its products in order.
            next_cursor: The cursor it came with.

        Raises:
            OctogenPagingError: The cursor was used before, or page 1 came back too often.
        """
        self.pages += 1
        if self.pages == 1:
            self._first = (uuids, next_cursor)
            self._first_products = frozenset(uuids)
        elif self._is_first_page_again(uuids, next_cursor):
            self.restarts += 1
            self._used.clear()
            if self.restarts > MAX_RESTARTS:
                raise OctogenPagingError(
                    f"{self.subject}: page {self.pages} is page 1 again, for the "
                    f"{self.restarts}rd time: the service does not accept its own cursors. "
                    "Nothing was published; run it again, and report it to Octogen if it stays."
                )
        elif self._resembles_first_page(uuids):
            self.may_have_restarted = True
        if not next_cursor:
            return
        if next_cursor in self._used:
            raise OctogenPagingError(
                f"{self.subject}: page {self.pages} came with the cursor that page "
                f"{self._used[next_cursor]} had come with, so the pages loop. Nothing was "
                "published; run it again, and report it to Octogen if it stays."
            )
        self._used[next_cursor] = self.pages

    @property
    def first_uuids(self) -> Sequence[str]:
        """The products of page 1, in order."""
        return self._first[0]

    def deduplicated(self, new: int, repeats: int) -> None:
        """Note what was new on the next page, in order, for the guard against endless walks.

        A reader may see pages ahead of counting them.

        Args:
            new: Products that had not come before.
            repeats: Products that had.

        Raises:
            OctogenPagingError: Too many pages in a row brought nothing new.
        """
        self.repeats += repeats
        self._counted += 1
        self._barren_in_a_row = 0 if new else self._barren_in_a_row + 1
        self._barren += not new
        productive = self._counted - self._barren
        # After a restart everything that was read comes again.
        if self._barren_in_a_row > productive * (1 + self.restarts) + SPARE_BARREN_PAGES:
            raise OctogenPagingError(
                f"{self.subject}: {self._barren_in_a_row} pages in a row, up to page "
                f"{self._counted}, brought no new product: the pages do not come to an end. "
                "Nothing was published; run it again, and report it to Octogen if it stays."
            )

    def _resembles_first_page(self, uuids: Sequence[str]) -> bool:
        first = self._first_products
        return len(first) >= _ENOUGH_TO_TELL and 2 * len(first.intersection(uuids)) > len(first)

    def _is_first_page_again(self, uuids: Sequence[str], next_cursor: str | None) -> bool:
        first_uuids, first_cursor = self._first
        if next_cursor and next_cursor == first_cursor:
            return not self._first_products.isdisjoint(uuids)
        # A page of a single product may just repeat it.
        return len(uuids) > 1 and uuids == first_uuids
