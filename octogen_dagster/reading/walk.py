"""A walk through the pages of a search: its saved pages, and its reading page by page."""

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
"""The statuses by which a service may refuse the cursor of a later page."""
_SCORES = {"display_match_score", "raw_score"}
_FACETS = {"facets", "excludeFacets"}
_MAX_BATCH_PAGES = 20
_MAX_BATCH_BYTES = 1_000_000
"""The bytes decoded at once: each call of Polars costs 1 ms, and more leave the caches."""


@dataclass(frozen=True, eq=False)
class Walk:
    """One walk through the pages of a search.

    `rows_per_product` are the rows of its only catalog for each product that its source counts, in
    the latest snapshot, if there is one: the source may count groups of what a search lists.
    """

    request: SearchRequest  # for page 1
    catalogs: tuple[CatalogState, ...] = ()  # that it reads; none for all that the key may search
    rows_per_product: float | None = None
    part: CatalogPart | None = None  # of its only catalog; None for a whole one
    saved: SavedWalk | None = None  # its saved pages; None if pages are not saved
    next_page: ProductPage | None = None  # after the saved ones, if it was requested already

    @property
    def catalog(self) -> str | None:
        """The key of its only catalog; None if it has several."""
        return self.catalogs[0].catalog if len(self.catalogs) == 1 else None

    @property
    def last_indexed_at(self) -> datetime | None:
        """The last time that one of its catalogs was indexed; None if one of them has none."""
        times = [state.last_indexed_at for state in self.catalogs]
        return max(filter(None, times), default=None) if all(times) else None

    @property
    def product_count(self) -> int | None:
        """The number of products of its whole catalogs by their source; None if it is not known."""
        counts = [state.product_count for state in self.catalogs]
        known = [count for count in counts if count is not None]
        return sum(known) if counts and len(known) == len(counts) else None

    @property
    def expected_rows(self) -> int | None:
        """The number of rows of its whole catalogs; None if it is not known."""
        count = self.product_count
        return None if count is None else round(count * (self.rows_per_product or 1))

    @property
    def subject(self) -> str:
        """The subject that begins messages, such as "Catalog 'acme'"."""
        if self.catalog is None:
            return "The search"
        part = f", part {self.part.number} of {self.part.parts}" if self.part else ""
        return f"Catalog {self.catalog!r}{part}"


class NotContinuedError(Exception):
    """Saved pages cannot be continued; the message says why."""


def continued(
    walks: Sequence[Walk], store: PageStore, client: BlockingClient, log: Callable[[str], None]
) -> list[Walk]:
    """Return the walks of one catalog with their saved pages, and the pages after those.

    Walks without saved pages, or whose pages cannot be continued, begin anew. If the service does
    not say when the catalog was indexed, all of them do once the pages of one have changed: walks
    must be of one state.
    """
    continued = []
    # The last pages of several walks tell as much as the first and the last page of one.
    compares_first = len(walks) == 1 or not all(_saved(each, store, client).pages for each in walks)
    for walk in walks:
        saved, next_page = _saved(walk, store, client), None
        if saved.pages:
            try:
                next_page = _next_page(walk, saved, client, compares_first=compares_first)
            except NotContinuedError as reason:
                log(f"{walk.subject}: {reason} They are not used.")
                if walk.last_indexed_at is None and len(walks) > 1:
                    log(f"Catalog {walk.catalog!r}: its other saved pages are not used either.")
                    store.discard([_saved(each, store, client).key for each in walks])
                    return [replace(each, saved=_saved(each, store, client)) for each in walks]
                store.discard([saved.key])
                saved = _saved(walk, store, client)
            else:
                log(
                    f"{walk.subject}: continues after {count(saved.pages, 'saved page')} of a "
                    f"read that began at {saved.started_at:%Y-%m-%d %H:%M} UTC."
                )
        elif store.has_other_times(saved.key):
            log(f"{walk.subject}: it was indexed again since its saved pages were read.")
        saved.first = saved.last = None  # they were compared, and are read again
        continued.append(replace(walk, saved=saved, next_page=next_page))
    return continued


def _saved(walk: Walk, store: PageStore, client: BlockingClient) -> SavedWalk:
    body, part = walk.request.body(), None
    if walk.part:  # only whole catalogs are split, and these have no facets
        part = [body.pop("facets", None), body.pop("exclude_facets", None)]
    indexed_times = [state.last_indexed_at for state in walk.catalogs]
    return store.walk(walk_key(client.service.base_url, body, indexed_times, part, store.scope))


def _next_page(
    walk: Walk, saved: SavedWalk, client: BlockingClient, *, compares_first: bool
) -> ProductPage | None:
    """Request the page after saved ones; None if there is none, or none is needed.

    If the service does not say when the catalog was indexed, the last saved page is requested too
    and compared, and the first one if it `compares_first`.
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
                    raise NotContinuedError(
                        f"page {number:,} is no longer the one that was saved: the catalog was "
                        "indexed again."
                    )
    except OctogenAPIError as error:
        if error.status_code not in _REFUSED_CURSOR_STATUSES:
            raise
        raise NotContinuedError(
            f"the service refuses the cursor of the saved pages ({error.status_code})."
        ) from None
    if page and may_be_first_page(first, page):
        raise NotContinuedError(
            "the service no longer knows the cursor of the saved pages and answered page 1 again."
        )
    # Without a request nothing has shown which generation the service speaks.
    if (page or walk.last_indexed_at is None) and client.service.generation != saved.generation:
        raise NotContinuedError(
            "the service speaks another generation of its contract than the saved pages."
        )
    return page


def _are_equal(saved: ProductPage, now: ProductPage, catalog: str | None) -> bool:
    """True if two pages have the same rows, scores aside, and both or none is the last one."""
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
    """Request a page of a search that must be understood as it was on the saved page 1."""
    request = walk.request.following(cursor) if cursor else walk.request
    page = client.page(request, walk.subject, number, read_page)
    if not is_same(page.effective_query, first.effective_query):
        raise NotContinuedError(
            "the service understands the search otherwise than when its pages were saved."
        )
    return page


class RefusedCursorError(OctogenPagingError):
    """The service refuses a cursor. The pages before it are still good."""


class WalkRead:
    """One walk under way: first its saved pages, then those of the service."""

    def __init__(self, walk: Walk) -> None:
        saved = walk.saved
        self.walk = walk
        self.tracker = PageTracker(walk.subject, walk.product_count, walk.rows_per_product)
        self.saved_pages = saved.pages if saved else 0
        self.resumed_pages = 0  # saved pages that came so far
        self.products = 0  # that came so far, with repeated ones
        self.ended = False  # the last page came
        self.failed = False  # its pages, which may be saved ones, cannot be read or joined
        self.effective_query: EffectiveQuery | None = None  # of page 1

    def batches(
        self, client: BlockingClient
    ) -> Generator[tuple[WalkRead, list[ProductPage]], None, None]:
        """Yield all pages, in batches that are decoded at once."""
        batch: list[ProductPage] = []
        size, limit = 0, 1
        with self.walk.saved or contextlib.nullcontext():
            for page in self.pages(client):
                batch.append(page)
                size += len(page.items)
                if len(batch) == limit or size >= _MAX_BATCH_BYTES:
                    yield self, batch
                    batch, size = [], 0
                    limit = min(2 * limit, _MAX_BATCH_PAGES)  # a query may need the first rows only
        if batch:
            yield self, batch

    def pages(self, client: BlockingClient) -> Iterator[ProductPage]:
        """Yield all pages, and save those that come from the service."""
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
                self._note(page)
                if self.walk.saved:
                    self.walk.saved.append(page, client.service.generation)
                yield page
        except OctogenAPIError as error:
            self._explain(error)

    def _saved_pages(self) -> Iterator[ProductPage]:
        """Yield the saved pages, and the one after them that was requested already."""
        for page in self.walk.saved or ():
            self.resumed_pages += 1
            self.tracker.page_received(page)
            self._note(page)
            yield page
        following = self.walk.next_page
        if following is not None and self.resumed_pages == self.saved_pages:
            self.tracker.page_received(following)
            self._note(following)
            if self.walk.saved:
                self.walk.saved.append(following, "")
            yield following

    def _explain(self, error: OctogenAPIError) -> NoReturn:
        if self.tracker.pages and error.status_code in _REFUSED_CURSOR_STATUSES:
            raise RefusedCursorError(
                f"{self.walk.subject}: the service refuses the cursor of page "
                f"{self.tracker.pages + 1:,} ({error.status_code}). It may have forgotten it, "
                "as after an index run. Nothing was published; run it again."
            ) from error
        if self.walk.part and error.status_code in REFUSED_STATUSES:
            raise OctogenPagingError(
                f"{error} Nothing was published. Set max_extra_pages_percent=0 (of "
                "OctogenResource or scan_products), which reads each catalog in one walk, and "
                "report it to Octogen."
            ) from error
        raise error

    def _note(self, page: ProductPage) -> None:
        self.products += len(page.uuids)
        self.ended = not page.next_cursor
        if self.tracker.pages != 1:
            return
        query = page.effective_query
        if query is not None and self.walk.part:  # its facets are not those of the search
            query = {name: value for name, value in query.items() if name not in _FACETS}
        self.effective_query = query

    def _require_products(self, page: ProductPage) -> None:
        """Refuse a catalog without products, unless the source says that it has none.

        A key that does not exist has the same response.
        """
        if page.uuids or page.next_cursor or self.tracker.pages > 1:
            return
        is_whole = self.walk.catalog and not self.walk.request.has_filters
        if is_whole and self.walk.product_count != 0:
            raise OctogenEmptyCatalogError(
                f"{self.walk.subject} has no products. The service answers the same for a "
                "catalog key that is mistyped, was renamed, or may no longer be read. Nothing was "
                "published. Correct the key, or ask Octogen about the catalog; remove it from "
                "what you read if it has ended."
            )
