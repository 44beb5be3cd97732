"""A walk through the pages of a search: what it reads, and its reading page by page."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, NoReturn

from octogen_dagster.api.paging import PageTracker
from octogen_dagster.errors import (
    OctogenAPIError,
    OctogenEmptyCatalogError,
    OctogenPagingError,
    OctogenResponseError,
)
from octogen_dagster.frames.decode import ProductPage, read_page
from octogen_dagster.frames.partition import REFUSED_STATUSES, CatalogPart

if TYPE_CHECKING:
    from octogen_dagster.api.blocking import BlockingClient
    from octogen_dagster.api.catalog_states import CatalogState
    from octogen_dagster.api.http import Response
    from octogen_dagster.api.search import SearchRequest
    from octogen_dagster.frames.effective_query import EffectiveQuery
    from octogen_dagster.frames.pages import SavedWalk

REFUSED_CURSOR_STATUSES = {400, 404, 409, 410, 413, 422}
"""The statuses by which a service may refuse the cursor of a later page."""
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

    @property
    def requested_pages(self) -> int:
        """The number of pages so far that came from the service."""
        return self.tracker.pages - self.resumed_pages

    def batches(
        self, client: BlockingClient
    ) -> Generator[tuple[WalkRead, list[ProductPage]], None, None]:
        """Yield all pages, in batches that are decoded at once."""
        batch: list[ProductPage] = []
        size, limit = 0, 1
        with self.walk.saved or contextlib.nullcontext():
            for page in self.pages(client):
                batch.append(page)
                size += page.size
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
            for page in client.pages(request, self.tracker, self._read_page):
                if client.generation == "current":
                    self._require_products(page)
                self._note(page)
                self._save(page, client.generation)
                yield page
        except OctogenAPIError as error:
            self._explain(error)

    def _read_page(self, response: Response, subject: str) -> ProductPage:
        return read_page(response, subject, is_first=not self.tracker.pages)

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
            self._save(following, "")
            yield following

    def _explain(self, error: OctogenAPIError) -> NoReturn:
        if self.tracker.pages and error.status_code in REFUSED_CURSOR_STATUSES:
            raise RefusedCursorError(
                f"{self.walk.subject}: the service refuses the cursor of page "
                f"{self.tracker.pages + 1:,} ({error.status_code}). It may have forgotten it, "
                "as after an index run. Nothing was published; run it again."
            ) from error
        if self.walk.part and error.status_code in REFUSED_STATUSES:
            raise OctogenPagingError(
                f"{error} Nothing was published. Set max_extra_pages_fraction=0 (of "
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

        Such is the response to a key that does not exist.
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

    def _save(self, page: ProductPage, generation: str) -> None:
        if self.walk.saved:
            self.walk.saved.append(page, generation)
