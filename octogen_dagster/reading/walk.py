"""Reads the pages of a search in order: first the saved pages, then pages from the service."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, NoReturn

from octogen_dagster.api.paging import PageTracker, may_be_first_page
from octogen_dagster.errors import (
    OctogenAPIError,
    OctogenEmptyCatalogError,
    OctogenPagingError,
    OctogenResponseError,
)
from octogen_dagster.frames.columns import PRODUCT_SCHEMA
from octogen_dagster.frames.effective_query import is_same
from octogen_dagster.printable import count
from octogen_dagster.reading.decode import ProductPage, product_frame, read_page
from octogen_dagster.reading.pages import PageStore, SavedWalk, walk_key
from octogen_dagster.reading.partition import REFUSED_STATUSES, CatalogPart

if TYPE_CHECKING:
    from octogen_dagster.api.blocking import BlockingClient
    from octogen_dagster.api.catalog_states import CatalogState
    from octogen_dagster.api.search import SearchRequest
    from octogen_dagster.frames.effective_query import EffectiveQuery

_REFUSED_CURSOR_STATUSES = {400, 404, 409, 410, 413, 422}
"""HTTP status codes that the service might return if it rejects the cursor of a later page."""
_SCORES = {"display_match_score", "raw_score"}
_FACETS = {"facets", "excludeFacets"}
_MAX_BATCH_PAGES = 20
_MAX_BATCH_BYTES = 1_000_000
"""The maximum batch size in bytes.

Each batch costs a Polars call, which takes 1 ms, so small batches waste time. Batches larger than
the CPU's caches are slow.
"""


@dataclass(frozen=True, eq=False)
class Walk:
    """One pass over the pages of a search, from page 1 to the last page.

    If the pass covers a single catalog, `rows_per_product` is the number of rows in the latest
    snapshot divided by the source's product count. The source might count product groups, while a
    search returns each product in a group.
    """

    request: SearchRequest  # for page 1
    catalogs: tuple[CatalogState, ...] = ()  # empty for all catalogs that the API key can search
    rows_per_product: float | None = None
    part: CatalogPart | None = None  # None for whole catalogs
    saved: SavedWalk | None = None  # None if pages are not saved
    next_page: ProductPage | None = None  # the page after the saved ones, if already requested

    @property
    def catalog(self) -> str | None:
        """The catalog key; None if the pass covers several catalogs."""
        return self.catalogs[0].catalog if len(self.catalogs) == 1 else None

    @property
    def last_indexed_at(self) -> datetime | None:
        """The latest index time of the catalogs; None if any catalog's index time is unknown."""
        times = [state.last_indexed_at for state in self.catalogs]
        return max(filter(None, times), default=None) if all(times) else None

    @property
    def product_count(self) -> int | None:
        """The source's product count for the complete catalogs; None if unknown."""
        counts = [state.product_count for state in self.catalogs]
        known = [count for count in counts if count is not None]
        return sum(known) if counts and len(known) == len(counts) else None

    @property
    def expected_rows(self) -> int | None:
        """The expected number of rows in the complete catalogs; None if unknown."""
        count = self.product_count
        return None if count is None else round(count * (self.rows_per_product or 1))

    @property
    def subject(self) -> str:
        """The subject in messages, such as "Catalog 'acme'"."""
        if self.catalog is None:
            return "The search"
        part = f", part {self.part.number} of {self.part.parts}" if self.part else ""
        return f"Catalog {self.catalog!r}{part}"


class NotResumableError(Exception):
    """The read cannot resume from the saved pages. The message explains why."""


def resumed(
    walks: Sequence[Walk], store: PageStore, client: BlockingClient, log: Callable[[str], None]
) -> list[Walk]:
    """Return the passes over one catalog, each with its saved pages if it can resume from them.

    For each pass, the next page after the saved pages is requested. A pass that has no usable saved
    pages starts from page 1. If the service does not report index times and the pages of one part
    have changed, all parts are read again from page 1, because all parts must come from the same
    state of the catalog.
    """
    resumed = []
    # The last pages of several parts show as much as the first and last page of a whole catalog.
    compares_first = len(walks) == 1 or not all(_saved(each, store, client).pages for each in walks)
    for walk in walks:
        saved, next_page = _saved(walk, store, client), None
        if saved.pages:
            try:
                next_page = _next_page(walk, saved, client, compares_first=compares_first)
            except NotResumableError as reason:
                log(f"{walk.subject}: ignoring the saved pages because {reason}")
                if walk.last_indexed_at is None and len(walks) > 1:
                    log(f"Catalog {walk.catalog!r}: ignoring the saved pages of all parts.")
                    store.discard([_saved(each, store, client).key for each in walks])
                    return [replace(each, saved=_saved(each, store, client)) for each in walks]
                store.discard([saved.key])
                saved = _saved(walk, store, client)
            else:
                log(
                    f"{walk.subject}: resuming after {count(saved.pages, 'saved page')} from a "
                    f"read that started at {saved.started_at:%Y-%m-%d %H:%M} UTC."
                )
        elif store.has_other_times(saved.key):
            log(
                f"{walk.subject}: ignoring the saved pages because the catalog was indexed again "
                "after the pages were read."
            )
        saved.first = saved.last = None  # frees memory; they are read again
        resumed.append(replace(walk, saved=saved, next_page=next_page))
    return resumed


def _saved(walk: Walk, store: PageStore, client: BlockingClient) -> SavedWalk:
    body, part = walk.request.body(), None
    if walk.part:  # only whole catalogs are split, and they have no facets
        part = [body.pop("facets", None), body.pop("exclude_facets", None)]
    indexed_times = [state.last_indexed_at for state in walk.catalogs]
    return store.walk(walk_key(client.service.base_url, body, indexed_times, part, store.scope))


def _next_page(
    walk: Walk, saved: SavedWalk, client: BlockingClient, *, compares_first: bool
) -> ProductPage | None:
    """Request the page after the saved pages. Return None if all pages were already saved.

    If the service does not report index times, the last saved page is requested again and compared
    with the saved copy. If `compares_first` is True, the first page is compared as well.
    """
    first, last = saved.first, saved.last
    assert first
    assert last
    page = None
    try:
        if last.next_cursor:
            page = _requested(walk, last.next_cursor, saved.pages + 1, first, client)
        if walk.last_indexed_at is None:
            compared = {saved.pages: (saved.last_cursor, last)}
            if compares_first:
                compared = {1: (None, first)} | compared
            for number, (cursor, before) in compared.items():
                now = _requested(walk, cursor, number, first, client)
                if not _are_equal(before, now, walk.catalog):
                    raise NotResumableError(
                        f"page {number:,} has changed, which shows that the catalog was indexed "
                        "again."
                    )
    except OctogenAPIError as error:
        if error.status_code not in _REFUSED_CURSOR_STATUSES:
            raise
        raise NotResumableError(
            f"the service rejected a saved cursor ({error.status_code})."
        ) from None
    if page and may_be_first_page(first, page):
        raise NotResumableError("the service ignored the saved cursor and returned page 1 again.")
    # If no request was sent, the service's API contract is still unknown.
    if (page or walk.last_indexed_at is None) and client.service.generation != saved.generation:
        raise NotResumableError("the service now uses another API contract.")
    return page


def _are_equal(saved: ProductPage, now: ProductPage, catalog: str | None) -> bool:
    """True if a page contains the same products as its saved copy. Scores are ignored.

    The result is False if only one of the two pages is the last page.
    """
    columns = PRODUCT_SCHEMA.keys() - _SCORES
    before, after = (product_frame([page], columns, catalog, datetime.min) for page in (saved, now))
    return bool(now.next_cursor) == bool(saved.next_cursor) and before.equals(after)


def _requested(
    walk: Walk,
    cursor: str | None,
    number: int,
    first: ProductPage,
    client: BlockingClient,
) -> ProductPage:
    """Request a page. Raise NotResumableError if the search is now interpreted differently."""
    request = walk.request.following(cursor) if cursor else walk.request
    page = client.page(request, walk.subject, number, read_page)
    if not is_same(page.effective_query, first.effective_query):
        raise NotResumableError("the service now interprets the search differently.")
    return page


class RefusedCursorError(OctogenPagingError):
    """The service rejected a cursor, but the pages before it are still valid."""


class WalkRead:
    """Reads the pages of one pass: first the saved pages, then pages from the service."""

    def __init__(self, walk: Walk) -> None:
        saved = walk.saved
        self.walk = walk
        self.tracker = PageTracker(walk.subject, walk.product_count, walk.rows_per_product)
        self.saved_pages = saved.pages if saved else 0
        self.resumed_pages = 0  # saved pages yielded so far
        self.products = 0  # received so far, with duplicates
        self.ended = False  # the last page was received
        self.failed = False  # pages, possibly saved ones, are unreadable or inconsistent
        self.effective_query: EffectiveQuery | None = None  # from page 1

    def batches(
        self, client: BlockingClient
    ) -> Generator[tuple[WalkRead, list[ProductPage]], None, None]:
        """Yield all pages in batches for decoding."""
        batch: list[ProductPage] = []
        size, limit = 0, 1
        with self.walk.saved or contextlib.nullcontext():
            for page in self.pages(client):
                batch.append(page)
                size += len(page.items)
                if len(batch) == limit or size >= _MAX_BATCH_BYTES:
                    yield self, batch
                    batch, size = [], 0
                    limit = min(2 * limit, _MAX_BATCH_PAGES)  # a query can need few rows
        if batch:
            yield self, batch

    def pages(self, client: BlockingClient) -> Iterator[ProductPage]:
        """Yield all pages, and save the pages that come from the service."""
        try:
            yield from self._pages(client)
        except RefusedCursorError:
            raise
        except (OctogenPagingError, OctogenResponseError):
            self.failed = True
            raise

    def _pages(self, client: BlockingClient) -> Iterator[ProductPage]:
        cursor = None
        for page in self._saved_pages():
            cursor = page.next_cursor
            yield page
        if self.tracker.pages and not cursor:
            return
        request = self.walk.request
        if cursor:
            request = request.following(cursor)
        try:
            for page in client.pages(
                request,
                self.tracker,
                lambda response, subject: read_page(
                    response, subject, is_first=not self.tracker.pages
                ),
            ):
                if client.service.generation == "current":
                    self._require_products(page)
                self._count(page)
                if self.walk.saved:
                    self.walk.saved.append(page, client.service.generation)
                yield page
        except OctogenAPIError as error:
            self._explain(error)

    def _saved_pages(self) -> Iterator[ProductPage]:
        """Yield the saved pages, then the next page if that page was already requested."""
        for page in self.walk.saved or ():
            self.resumed_pages += 1
            self.tracker.page_received(page)
            self._count(page)
            yield page
        following = self.walk.next_page
        if following is not None and self.resumed_pages == self.saved_pages:
            self.tracker.page_received(following)
            self._count(following)
            if self.walk.saved:
                self.walk.saved.append(following, "")
            yield following

    def _explain(self, error: OctogenAPIError) -> NoReturn:
        if self.tracker.pages and error.status_code in _REFUSED_CURSOR_STATUSES:
            raise RefusedCursorError(
                f"{self.walk.subject}: the service rejected the cursor for page "
                f"{self.tracker.pages + 1:,} ({error.status_code}). A cursor can expire, "
                "for example when the catalog is reindexed. Nothing was published. Retry the read."
            ) from error
        if self.walk.part and error.status_code in REFUSED_STATUSES:
            raise OctogenPagingError(
                f"{error} Nothing was published. To read each catalog in a single pass, set "
                "max_extra_pages_percent=0 in OctogenResource or scan_products. Please report the "
                "problem to Octogen."
            ) from error
        raise error

    def _count(self, page: ProductPage) -> None:
        self.products += len(page.uuids)
        self.ended = not page.next_cursor
        if self.tracker.pages != 1:
            return
        query = page.effective_query
        if query is not None and self.walk.part:  # the facets select the part
            query = {name: value for name, value in query.items() if name not in _FACETS}
        self.effective_query = query

    def _require_products(self, page: ProductPage) -> None:
        """Reject a catalog that has no products, unless the source also reports 0 products.

        The service sends the same response for an unknown catalog key.
        """
        if page.uuids or page.next_cursor or self.tracker.pages > 1:
            return
        is_whole = self.walk.catalog and not self.walk.request.has_filters
        if is_whole and self.walk.product_count != 0:
            raise OctogenEmptyCatalogError(
                f"{self.walk.subject} has no products. The service returns the same response if "
                "the catalog key is mistyped, was renamed or is no longer granted. Nothing was "
                "published. Correct the key, ask Octogen about the catalog, or stop reading the "
                "catalog."
            )
