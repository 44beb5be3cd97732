"""Check a search's pages for loops, restarts and repeated products. No I/O.

The service returns page 1 for an unknown cursor, can send a product on two pages, and does not
report the number of pages.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeVar

from octogen_dagster.errors import OctogenPagingError

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_PAGES_WITHOUT_NEW = 10
MAX_PRODUCTS = 10_000_000
"""Maximum number of products in a search whose size is unknown."""
MAX_COUNT_RATIO = 3
"""Maximum number of products in a catalog, as a multiple of the expected number."""
MAX_ROWS_PER_PRODUCT = 100
"""Maximum rows per product in the source's count, if no earlier read shows the actual ratio.

The catalog source might count product groups, but a search returns each variant.
"""
MIN_LIMIT = 10_000
"""Lower bound for a catalog's row limit, because a growing catalog's count might be outdated."""
_MIN_SECOND_PAGE = 10  # a shorter page 2 might repeat by chance

INDEXED_AGAIN = (
    "so the pages might come from two versions of the catalog. Nothing was published. Try again."
)


class Page(Protocol):
    """A search page that `PageTracker` can check."""

    @property
    def uuids(self) -> Sequence[str]: ...

    @property
    def next_cursor(self) -> str | None: ...


PageT = TypeVar("PageT", bound=Page)


class _FirstPage(NamedTuple):
    uuids: Sequence[str]
    next_cursor: str | None


def is_first_page_again(first: Page, page: Page) -> bool:
    """True if a later page has page 1's next cursor and at least one of page 1's products."""
    is_same_cursor = bool(page.next_cursor) and page.next_cursor == first.next_cursor
    return is_same_cursor and not set(first.uuids).isdisjoint(page.uuids)


def may_be_first_page(first: Page, page: Page) -> bool:
    """True if a later page might be a copy of page 1.

    The page has exactly page 1's products, or `is_first_page_again` is true. Page 1 is ranked by
    relevance and later pages by quality. If both orders agree, page 2 legitimately repeats page 1's
    products.
    """
    return is_first_page_again(first, page) or (bool(first.uuids) and page.uuids == first.uuids)


class PageTracker:
    """Checks each page of a search as it is read.

    Error messages begin with `subject`, such as "Catalog 'acme'". The optional `product_count` is
    the catalog's number of products. The optional `rows_per_product` is the number of rows per
    product in an earlier read.

    `may_have_restarted` becomes true if a later page repeats most of page 1, or if the search
    repeats more products than page 1 contains. Either the service restarted the search, or page 1's
    products rank high in both orders. After the last page, `check_first_page` finds the cause.
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
        self._repeats_first = 0  # the last page with exactly page 1's products
        self._cursors_after_first: set[str | None] = set()
        self._fresh_cursor: str | None = None  # page 1's cursor after the last page
        self._has_last_page = False
        self._deduplicated = 0
        self._pages_with_new = 0
        self._pages_without_new = 0  # in a row

    def page_received(self, page: Page) -> None:
        """Check the next page.

        Raises:
            OctogenPagingError: The service started again at page 1, a cursor was repeated, or the
                search returned far more products than expected.
        """
        self.pages += 1
        self._products += len(page.uuids)
        if self._first is None:
            self._first = _FirstPage(list(page.uuids), page.next_cursor)  # without the content
            self._first_uuids = frozenset(page.uuids)
        else:
            self._compare_with_first_pages(self._first, page)
        if not page.next_cursor:
            self._has_last_page = True
            return
        if page.next_cursor in self._page_of_cursor:
            raise OctogenPagingError(
                f"{self.subject}: page {self.pages} has the same next cursor as page "
                f"{self._page_of_cursor[page.next_cursor]}, so the pages loop. Nothing was "
                "published. Try again, and report the problem to Octogen if it persists."
            )
        self._page_of_cursor[page.next_cursor] = self.pages
        self.check_number_of_products()

    def deduplicated(self, new: int, repeats: int) -> None:
        """Record a page's numbers of new and repeated products. Call this method in page order.

        Further pages can be received before a page is recorded here. Too many consecutive pages
        without a new product raise an error.
        """
        self.repeats += repeats
        self._pages_with_new += bool(new)
        self._pages_without_new = 0 if new else self._pages_without_new + 1
        self._deduplicated += 1
        # The later pages share one order, so only page 1's products can repeat.
        if self._first and self.repeats > len(self._first.uuids):
            self.may_have_restarted = True
        if self._has_last_page and self._deduplicated == self.pages:
            self._forget()
        if self._pages_without_new > self._pages_with_new + MAX_PAGES_WITHOUT_NEW:
            raise OctogenPagingError(
                f"{self.subject}: {self._pages_without_new} consecutive pages, up to page "
                f"{self._deduplicated}, contained no new products. The pages might never end. "
                "Nothing was published. Try again, and report the problem to Octogen if it "
                "persists."
            )

    def check_number_of_products(self, in_all_parts: int = 0) -> None:
        """Raise an error if the search returned far more products than expected."""
        count = self._product_count
        limit = MAX_PRODUCTS if count is None else max(self._max_ratio * count, MIN_LIMIT)
        if max(self._products, in_all_parts) <= limit:
            return
        received = f"{self._products:,} products in {self.pages:,} pages"
        if in_all_parts:
            received = f"{in_all_parts:,} products in all parallel parts"
        if count is None:
            expected, advice = (
                "The expected number of products is unknown",
                "Narrow the search, or use a catalog source with product counts, such as "
                "ShopCatalogs",
            )
        else:
            expected, advice = (
                f"The catalog source reports {count:,.0f} products",
                "If the catalog has grown, try again once the source's count is up to date, or "
                "use NamedCatalogs",
            )
        raise OctogenPagingError(
            f"{self.subject} returned {received} and has more pages. {expected}. Nothing was "
            f"published. {advice}. If the problem persists, report it to Octogen."
        )

    def check_first_page(self, fresh: Page) -> None:
        """Raise an error if page 1 changed during the read, or if the search restarted at page 1.

        Call this method after the last page while `may_have_restarted` is true, at most twice.
        `fresh` is page 1 from a new request. If page 1's cursor has changed, the second call shows
        whether the cursor changes with every response or only with the catalog.
        """
        assert self._first
        if fresh.next_cursor and fresh.next_cursor in self._cursors_after_first:
            raise self._restarted("a later page")
        is_same_cursor = fresh.next_cursor == self._first.next_cursor
        if (
            list(fresh.uuids) != list(self._first.uuids)
            or bool(fresh.next_cursor) != bool(self._first.next_cursor)
            # If the changed cursor is the same again, the catalog changed. Otherwise, cursors
            # change with every response.
            or (not is_same_cursor and fresh.next_cursor == self._fresh_cursor)
        ):
            raise OctogenPagingError(
                f"{self.subject}: page 1 changed during the read, {INDEXED_AGAIN}"
            )
        self.may_have_restarted = not is_same_cursor and self._fresh_cursor is None
        self._fresh_cursor = fresh.next_cursor

    def _compare_with_first_pages(self, first: Page, page: Page) -> None:
        if is_first_page_again(first, page):
            raise self._restarted(f"page {self.pages}")
        if self.pages == 2:
            self._second_uuids = frozenset(page.uuids)
        # A legitimate repeat of page 1 is a single page. After a restart, page 2 is repeated too.
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
        """Release the memory that is not needed after the last page."""
        self._page_of_cursor.clear()
        self._second_uuids = self._first_uuids = frozenset()
        if not self.may_have_restarted:
            self._first = None

    def _restarted(self, which: str) -> OctogenPagingError:
        return OctogenPagingError(
            f"{self.subject}: the service returned page 1 again instead of {which}. The cursor is "
            "no longer valid, probably because the catalog was re-indexed. Nothing was published. "
            "Try again."
        )


def _is_mostly(uuids: frozenset[str], page: Page) -> bool:
    """True if a page contains more than half of an earlier page's products."""
    return 2 * len(uuids.intersection(page.uuids)) > len(uuids)
