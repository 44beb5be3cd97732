"""The pages of one search: loops, restarts, repeated products. No I/O.

The service answers page 1 for a cursor that it does not know, can send a product on two pages, and
never says how many pages there are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeVar

from octogen_dagster.errors import OctogenPagingError

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_PAGES_WITHOUT_NEW = 10
MAX_PRODUCTS = 10_000_000
"""The most products of a search of which nobody says how many it has."""
MAX_COUNT_RATIO = 3
"""The most products of a catalog, as a multiple of those to expect."""
MAX_ROWS_PER_PRODUCT = 100
"""The most products for each that the source counts, as long as no whole read says how many.

The source may count groups, and a search may list the variants in them.
"""
MIN_LIMIT = 10_000
"""A catalog may grow from a few products to that many before its source says so."""
_MIN_SECOND_PAGE = 10  # fewer products may follow page 1 again by chance

INDEXED_AGAIN = (
    "so its pages may be of two states, which must not be mixed. Nothing was published; run it "
    "again."
)


class Page(Protocol):
    """A page as a `PageTracker` needs it: its products in order, and the cursor after it."""

    @property
    def uuids(self) -> Sequence[str]: ...

    @property
    def next_cursor(self) -> str | None: ...


PageT = TypeVar("PageT", bound=Page)


class _FirstPage(NamedTuple):
    uuids: Sequence[str]
    next_cursor: str | None


def is_first_page_again(first: Page, page: Page) -> bool:
    """True if a page that was requested with a cursor has page 1's next cursor and products."""
    is_same_cursor = bool(page.next_cursor) and page.next_cursor == first.next_cursor
    return is_same_cursor and not set(first.uuids).isdisjoint(page.uuids)


def may_be_first_page(first: Page, page: Page) -> bool:
    """True if a later page is page 1 again, or has exactly its products.

    Page 1 is ranked by relevance and the later pages by quality. Where both orders are the same,
    page 2 has page 1's products with good reason.
    """
    return is_first_page_again(first, page) or (bool(first.uuids) and page.uuids == first.uuids)


class PageTracker:
    """Checks the pages of one search as they come.

    `subject` is what is read, which error messages begin with: "Catalog 'acme'". `product_count` is
    the number of products of the catalog that is read, or of which a part is; `rows_per_product`
    how many came for each of these in an earlier read. Either may be unknown.

    `may_have_restarted` becomes true if a later page brought most of page 1, or if more products
    came again than page 1 has: the pages began again after a change, or the products of page 1 rank
    high in both of the service's orders. `check_first_page` tells which at the end.
    """

    def __init__(
        self,
        subject: str,
        product_count: int | None = None,
        rows_per_product: float | None = None,
    ) -> None:
        self.subject = subject
        self.pages = 0
        self.repeats = 0
        self.may_have_restarted = False
        self._product_count = product_count
        self._max_ratio: float = MAX_ROWS_PER_PRODUCT
        if rows_per_product is not None:
            self._max_ratio = MAX_COUNT_RATIO * max(1, rows_per_product)
        self._products = 0
        self._page_of_cursor: dict[str, int] = {}
        self._first: _FirstPage | None = None
        self._first_uuids: frozenset[str] = frozenset()
        self._second_uuids: frozenset[str] = frozenset()
        self._repeats_first = 0  # the last page that had exactly page 1's products
        self._cursors_after_first: set[str | None] = set()
        self._fresh_cursor: str | None = None  # of page 1 after the last page
        self._has_last_page = False
        self._deduplicated = 0
        self._pages_with_new = 0
        self._pages_without_new = 0  # in a row

    def page_received(self, page: Page) -> None:
        """Check the next page.

        It is an error if the pages began again at page 1, if its cursor was used before, or if more
        pages follow after far too many products.
        """
        self.pages += 1
        self._products += len(page.uuids)
        if self._first is None:
            self._first = _FirstPage(list(page.uuids), page.next_cursor)  # and not its content
            self._first_uuids = frozenset(page.uuids)
        else:
            self._compare_with_first_pages(self._first, page)
        if not page.next_cursor:
            self._has_last_page = True
            return
        if page.next_cursor in self._page_of_cursor:
            raise OctogenPagingError(
                f"{self.subject}: page {self.pages} has the next cursor that page "
                f"{self._page_of_cursor[page.next_cursor]} had, so the pages loop. Nothing was "
                "published; run it again, and report it to Octogen if it stays."
            )
        self._page_of_cursor[page.next_cursor] = self.pages
        self.check_number_of_products()

    def deduplicated(self, new: int, repeats: int) -> None:
        """Note how many products of the next page were new, in the order of the pages.

        Pages may be received ahead of it. Too many in a row without a new one are an error.
        """
        self.repeats += repeats
        self._pages_with_new += bool(new)
        self._pages_without_new = 0 if new else self._pages_without_new + 1
        self._deduplicated += 1
        # The later pages are in one order, in which only products of page 1 come a second time.
        if self._first and self.repeats > len(self._first.uuids):
            self.may_have_restarted = True
        if self._has_last_page and self._deduplicated == self.pages:
            self._forget()
        if self._pages_without_new > self._pages_with_new + MAX_PAGES_WITHOUT_NEW:
            raise OctogenPagingError(
                f"{self.subject}: {self._pages_without_new} pages in a row, up to page "
                f"{self._deduplicated}, brought no new product: the pages do not come to an end. "
                "Nothing was published; run it again, and report it to Octogen if it stays."
            )

    def check_number_of_products(self, in_all_walks: int = 0) -> None:
        """Refuse far more products than there can be."""
        count = self._product_count
        limit = MAX_PRODUCTS if count is None else max(self._max_ratio * count, MIN_LIMIT)
        if max(self._products, in_all_walks) <= limit:
            return
        came = f"{self._products:,} products came up to page {self.pages:,}"
        if in_all_walks:
            came = f"{in_all_walks:,} products came in all walks"
        if count is None:
            known, advice = (
                "nothing says how many there are",
                "narrow the search, or read the catalogs of a source that counts their products, "
                "such as ShopCatalogs",
            )
        else:
            known, advice = (
                f"the source of catalogs says {count:,.0f}",
                "if the catalog has grown, run it again once its source says so, or name it in "
                "NamedCatalogs",
            )
        raise OctogenPagingError(
            f"{self.subject}: {came}, and more would follow, although {known}: the pages do not "
            f"come to an end. Nothing was published. Report it to Octogen; {advice}."
        )

    def check_first_page(self, fresh: Page) -> None:
        """Check after the last page that page 1 is what it was, and that no later page was page 1.

        `fresh` is page 1 as the service sends it now. Call it as long as `may_have_restarted` is
        true, at most twice. If page 1 has another cursor than it had, the second call tells whether
        each response has one of its own, or each state of the catalog.
        """
        assert self._first
        if fresh.next_cursor and fresh.next_cursor in self._cursors_after_first:
            raise self._restarted("a later page")
        is_same_cursor = fresh.next_cursor == self._first.next_cursor
        if (
            list(fresh.uuids) != list(self._first.uuids)
            or bool(fresh.next_cursor) != bool(self._first.next_cursor)
            # A new cursor that comes twice is of a new state; otherwise each response has its own.
            or (not is_same_cursor and fresh.next_cursor == self._fresh_cursor)
        ):
            raise OctogenPagingError(
                f"{self.subject} has another page 1 than when the read began, {INDEXED_AGAIN}"
            )
        self.may_have_restarted = not is_same_cursor and self._fresh_cursor is None
        self._fresh_cursor = fresh.next_cursor

    def _compare_with_first_pages(self, first: Page, page: Page) -> None:
        if is_first_page_again(first, page):
            raise self._restarted(f"page {self.pages}")
        if self.pages == 2:
            self._second_uuids = frozenset(page.uuids)
        # An honest repetition of page 1 is one page; after a restart page 2 comes as well.
        elif (
            self._repeats_first == self.pages - 1
            and len(self._second_uuids) >= _MIN_SECOND_PAGE
            and _is_mostly(self._second_uuids, page)
        ):
            raise self._restarted(f"page {self.pages - 1}")
        if _is_mostly(self._first_uuids, page):
            self.may_have_restarted = True
            self._cursors_after_first.add(page.next_cursor)
            if may_be_first_page(first, page):
                self._repeats_first = self.pages

    def _forget(self) -> None:
        """After the last page, keep only what the comparison with a fresh page 1 needs."""
        self._page_of_cursor.clear()
        self._second_uuids = self._first_uuids = frozenset()
        if not self.may_have_restarted:
            self._first = None

    def _restarted(self, which: str) -> OctogenPagingError:
        return OctogenPagingError(
            f"{self.subject}: the service answered {which} with page 1 again. It no longer knows "
            "its cursor, as after an index run, and pages of two states must not be mixed. Nothing "
            "was published; run it again."
        )


def _is_mostly(uuids: frozenset[str], page: Page) -> bool:
    """True if a page has most products of an earlier page."""
    return 2 * len(uuids.intersection(page.uuids)) > len(uuids)
