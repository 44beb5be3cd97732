"""CatalogRead: the pages of one catalog, first the saved ones, then those of the service."""

from __future__ import annotations

from typing import TYPE_CHECKING

from octogen_dagster.api.paging import PageTracker
from octogen_dagster.errors import (
    OctogenAPIError,
    OctogenEmptyCatalogError,
    OctogenPagingError,
    OctogenResponseError,
)
from octogen_dagster.frames.decode import read_page
from octogen_dagster.frames.pages.storage import RemovedError
from octogen_dagster.frames.partition import REFUSED_STATUSES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from octogen_dagster.api.blocking import BlockingClient
    from octogen_dagster.api.http import Response
    from octogen_dagster.api.search import SearchRequest
    from octogen_dagster.frames.decode import ProductPage
    from octogen_dagster.frames.effective_query import EffectiveQuery
    from octogen_dagster.frames.pages.saver import PageSaver
    from octogen_dagster.frames.plan import PlannedCatalog

_FACETS = {"facets", "excludeFacets"}
REFUSED_CURSOR_STATUSES = {400, 404, 409, 410, 413, 422}


class RefusedCursorError(OctogenPagingError):
    """The service refuses a cursor. The pages before it are still good."""


class CatalogRead:
    """One read of one catalog.

    Args:
        planned: The catalog and the request for its page 1.
        saved: The saved first pages of the catalog.
        saved_pages: The number of these pages.
        next_page: The page after the saved ones, if it was requested already.
        saver: Saves the pages that come from the service.
        log: Called with a line if another run removed the saved pages.

    Attributes:
        planned: As in the arguments.
        saver: As in the arguments.
        saved_pages: As in the arguments.
        tracker: Checks the order of the pages.
        resumed_pages: The number of saved pages read so far.
        products: The number of products received so far, repeated ones included.
        ended: True if the last page was received.
        failed: True if its pages, which may be saved ones, cannot be read or joined.
        effective_query: The effective query of page 1; None before it and from an older service.
    """

    def __init__(
        self,
        planned: PlannedCatalog,
        *,
        saved: Iterable[ProductPage] = (),
        saved_pages: int = 0,
        next_page: ProductPage | None = None,
        saver: PageSaver | None = None,
        log: Callable[[str], None] = lambda _line: None,
    ) -> None:
        self.planned = planned
        self.saver = saver
        self.tracker = PageTracker(planned.subject, planned.product_count, planned.rows_per_product)
        self.resumed_pages = 0
        self.products = 0
        self.ended = False
        self.failed = False
        self.effective_query: EffectiveQuery | None = None
        self.saved_pages = saved_pages
        self._saved = saved
        first_page = planned.first_page
        self._next_page = next_page or (first_page.page if first_page else None)
        self._log = log

    @property
    def requested_pages(self) -> int:
        """The number of pages so far that came from the service."""
        return self.tracker.pages - self.resumed_pages

    def pages(self, client: BlockingClient) -> Iterator[ProductPage]:
        """Yield all pages of the catalog, and save those that come from the service.

        Raises:
            RefusedCursorError: The service refuses the cursor of a later page.
            OctogenPagingError: The pages loop, restart or do not come to an end, or the service
                refuses the part of a catalog that a saved read began with.
            OctogenEmptyCatalogError: A service of the current generation has no product in it.
            OctogenSnapshotError: Saved pages are damaged.
            OctogenError: A request failed.
        """
        try:
            yield from self._pages(client)
        except RefusedCursorError:
            raise
        except (OctogenPagingError, OctogenResponseError):
            self.failed = True
            raise

    def _pages(self, client: BlockingClient) -> Iterator[ProductPage]:
        request: SearchRequest | None = self.planned.request
        for page in self._pages_at_hand():
            self.tracker.page_received(page)
            self._note(page)
            if page is self._next_page:
                self._save(page)
            else:
                self.resumed_pages += 1
            yield page
            request = self._following(page)
        if request is None:
            return
        try:
            for page in client.pages(request, self.tracker, self._read_page):
                if client.generation == "current":
                    self._require_products(page)
                self._note(page)
                self._save(page, client.generation)
                yield page
        except OctogenAPIError as error:
            if self.tracker.pages and error.status_code in REFUSED_CURSOR_STATUSES:
                raise RefusedCursorError(
                    f"{self.planned.subject}: the service refuses the cursor of page "
                    f"{self.tracker.pages + 1:,} ({error.status_code}). It may have forgotten it, "
                    "as after an index run. Nothing was published; run it again."
                ) from error
            if self.planned.part and error.status_code in REFUSED_STATUSES:
                raise OctogenPagingError(
                    f"{error} Nothing was published; run it again, and the catalog is split anew "
                    "or read in one walk."
                ) from error
            raise

    def _read_page(self, response: Response, subject: str) -> ProductPage:
        return read_page(response, subject, is_first=not self.tracker.pages)

    def _note(self, page: ProductPage) -> None:
        self.products += len(page.uuids)
        self.ended = not page.next_cursor
        if self.tracker.pages != 1:
            return
        query = page.effective_query
        if query is not None and self.planned.part:  # its facets are not those of the search
            query = {name: value for name, value in query.items() if name not in _FACETS}
        self.effective_query = query

    def _require_products(self, page: ProductPage) -> None:
        """Refuse a catalog without products, unless the source says that it has none.

        Such is the response to a key that does not exist.
        """
        if page.uuids or page.next_cursor or self.tracker.pages > 1:
            return
        is_whole = self.planned.catalog and not self.planned.request.has_filters
        if is_whole and self.planned.product_count != 0:
            raise OctogenEmptyCatalogError(
                f"{self.planned.subject} has no products. The service answers the same for a "
                "catalog key that is mistyped, was renamed, or may no longer be read. Nothing was "
                "published. Correct the key, or ask Octogen about the catalog; remove it from "
                "what you read if it has ended."
            )

    def _pages_at_hand(self) -> Iterator[ProductPage]:
        """Yield the saved pages and the one after them, until one was removed."""
        try:
            yield from self._saved
        except RemovedError as error:
            self._log(
                f"{self.planned.subject}: {error} The service is asked for the pages after page "
                f"{self.resumed_pages:,}."
            )
            return
        if self._next_page:
            yield self._next_page

    def _following(self, page: ProductPage) -> SearchRequest | None:
        return self.planned.request.following(page.next_cursor) if page.next_cursor else None

    def _save(self, page: ProductPage, generation: str | None = None) -> None:
        if self.saver:
            self.saver.generation = generation or self.saver.generation
            self.saver.add(page)
