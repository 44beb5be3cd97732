"""SavedPages: the saved first pages of a catalog, checked against the service."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from octogen_dagster.api.paging import may_be_first_page
from octogen_dagster.errors import OctogenAPIError, OctogenSnapshotError
from octogen_dagster.frames.columns import PRODUCT_SCHEMA
from octogen_dagster.frames.decode import product_frame, read_page
from octogen_dagster.frames.effective_query import is_same
from octogen_dagster.frames.plan import REFUSED_CURSOR_STATUSES

if TYPE_CHECKING:
    from octogen_dagster.api.blocking import BlockingClient
    from octogen_dagster.frames.decode import ProductPage
    from octogen_dagster.frames.pages.saved_read import SavedRead
    from octogen_dagster.frames.pages.segments import Segment, SegmentName
    from octogen_dagster.frames.plan import Walk

_OF_THE_REQUEST = {"display_match_score", "raw_score"}


class NotContinuedError(Exception):
    """Saved pages cannot be continued; the message says why."""


@dataclass(frozen=True)
class SavedPages:
    """Consecutive saved pages of one catalog, from page 1, verified.

    Attributes:
        read: The read that saved them.
        segments: Their segments, in order.
        first: The first segment.
        last: The last segment.
        pages: The number of pages.
        last_cursor: The cursor of the last page; None for page 1.
    """

    read: SavedRead
    segments: Sequence[SegmentName]
    first: Segment
    last: Segment
    pages: int
    last_cursor: str | None

    @property
    def next_cursor(self) -> str | None:
        """The cursor of the page after the last saved one; None if there is no such page."""
        return self.last.pages[-1].next_cursor


def verified_pages(
    read: SavedRead, place: int, subject: str, log: Callable[[str], None]
) -> SavedPages | None:
    """Read the pages of a catalog up to the first damaged segment; None if there are none.

    Args:
        read: The read.
        place: The place of the catalog in the record of the read.
        subject: What was read; begins log lines.
        log: Called with a line about a damaged segment.
    """
    names: list[SegmentName] = []
    segments: list[Segment] = []
    cursors: list[str | None] = [None]
    for name in read.segments_of(place):
        try:
            segment = read.segment(name)
        except OctogenSnapshotError as error:
            log(f"{subject}: {error} The pages before it are used.")
            break
        names.append(name)
        segments = [*segments[:1], segment]
        cursors += [page.next_cursor for page in segment.pages]
    if not segments:
        return None
    return SavedPages(read, names, segments[0], segments[-1], len(cursors) - 1, cursors[-2])


def request_next_page(
    catalog: Walk, saved: SavedPages, client: BlockingClient
) -> ProductPage | None:
    """Request the page after saved ones; None if there is none.

    If the service does not say when the catalog was indexed, the first and the last saved page are
    requested too and compared.

    Raises:
        NotContinuedError: The service no longer continues the saved pages.
        OctogenError: The service fails.
    """
    first, last = saved.first.pages[0], saved.last.pages[-1]
    requests = _Requests(catalog, saved, first, last)
    try:
        page = requests(client)
    except OctogenAPIError as error:
        if error.status_code not in REFUSED_CURSOR_STATUSES:
            raise
        raise NotContinuedError(
            f"the service refuses the cursor of the saved pages ({error.status_code})."
        ) from None
    if page and may_be_first_page(first, page):
        raise NotContinuedError(
            "the service no longer knows the cursor of the saved pages and answered page 1 again."
        )
    if requests.changed_page:
        raise NotContinuedError(
            f"page {requests.changed_page:,} is no longer the one that was saved: the catalog was "
            "indexed again."
        )
    if requests.generation != saved.first.generation:
        raise NotContinuedError(
            "the service speaks another generation of its contract than the saved pages."
        )
    return page


class _Requests:
    """Requests the page after saved ones, and the saved ones that are compared.

    Attributes:
        generation: The generation of the contract that the service speaks.
        changed_page: The number of a saved page that has changed; 0 if none has.
    """

    def __init__(
        self, catalog: Walk, saved: SavedPages, first: ProductPage, last: ProductPage
    ) -> None:
        self._catalog = catalog
        self._saved = saved
        self._effective_query = first.effective_query
        self._compared = {1: (None, first), saved.pages: (saved.last_cursor, last)}
        self.generation = ""
        self.changed_page = 0

    def __call__(self, client: BlockingClient) -> ProductPage | None:
        """Request the page after the saved ones; None if there is none.

        Raises:
            NotContinuedError: The search is understood otherwise.
        """
        page = None
        if self._saved.next_cursor:
            page = self._page(client, self._saved.next_cursor, self._saved.pages + 1)
        if not self._catalog.last_indexed_at:
            self.changed_page = self._find_changed_page(client)
        self.generation = client.service.generation
        return page

    def _find_changed_page(self, client: BlockingClient) -> int:
        for number, (cursor, page) in self._compared.items():
            now = self._page(client, cursor, number)
            is_as_far = bool(now.next_cursor) == bool(page.next_cursor)
            if not (is_as_far and self._are_equal(page, now)):
                return number
        return 0

    def _page(self, client: BlockingClient, cursor: str | None, number: int) -> ProductPage:
        request = self._catalog.request
        if cursor:
            request = request.following(cursor)
        page = client.page(request, self._catalog.subject, number, read_page)
        if not is_same(page.effective_query, self._effective_query):
            raise NotContinuedError(
                "the service understands the search otherwise than when its pages were saved."
            )
        return page

    def _are_equal(self, one: ProductPage, other: ProductPage) -> bool:
        """True if two pages have the same rows, scores aside."""
        columns = PRODUCT_SCHEMA.keys() - _OF_THE_REQUEST
        first, second = (
            product_frame([page], columns, self._catalog.catalog, datetime.min)
            for page in (one, other)
        )
        return first.equals(second)
