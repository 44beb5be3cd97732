"""BulkReader: the pages of many searches, read by threads, handed to one consumer."""

from __future__ import annotations

import contextlib
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from typing_extensions import Self

from octogen_dagster.api.paging import PageTracker
from octogen_dagster.errors import OctogenSnapshotError
from octogen_dagster.frames.client_threads import POLL_SECONDS, ClientThreads, ClosedError
from octogen_dagster.frames.wire import read_page

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence

    from octogen_dagster.api.client import OctogenClient
    from octogen_dagster.api.connection import Connection
    from octogen_dagster.api.models import MerchantCatalogSummary, SearchRequest
    from octogen_dagster.frames.pages.saver import PageSaver
    from octogen_dagster.frames.wire import WirePage

PAGES_AT_ONCE = 10


@dataclass(slots=True, eq=False)
class CatalogRead:
    """One walk: what is asked for, and what is known of its pages.

    Attributes:
        catalog: The catalog's key, if one was named.
        request: The request for page 1.
        walk: Notes the pages.
        summary: What the service says of the catalog, if it does.
        saved: Its first pages, if they are there already.
        ahead: The page after the saved ones, if it was asked for already.
        live: Whether the service may be asked for more pages.
        gone: Told when saved pages are gone, and the service is asked for them instead; without it
            that is an error.
        saver: Saves the pages that come from the service.
        saved_pages: Saved pages that were read so far.
    """

    catalog: str | None
    request: SearchRequest
    walk: PageTracker
    summary: MerchantCatalogSummary | None = None
    saved: Iterable[WirePage] = ()
    ahead: WirePage | None = None
    live: bool = True
    gone: Callable[[str], None] | None = None
    saver: PageSaver | None = None
    saved_pages: int = 0

    @classmethod
    def of(cls, request: SearchRequest, summary: MerchantCatalogSummary | None) -> Self:
        """A walk that has not begun."""
        subject = f"Catalog {request.catalog!r}" if request.catalog else "The search"
        return cls(request.catalog, request, PageTracker(subject), summary)

    async def pages(self, client: OctogenClient) -> AsyncIterator[WirePage]:
        """All its pages: the saved ones, then those from the service, which are saved."""
        request: SearchRequest | None = self.request
        for page in self._at_hand():
            self.walk.page_received(page.uuids, page.next_cursor)
            if page is not self.ahead:
                self.saved_pages += 1
            elif self.saver:
                self.saver.add(page)
            yield page
            request = self.request.following(page.next_cursor) if page.next_cursor else None
        if request is None or not self.live:
            return
        async for page in client.iter_raw_pages(request, self.walk, read_page):
            if self.saver:
                self.saver.generation = client.generation
                self.saver.add(page)
            yield page

    def _at_hand(self) -> Iterator[WirePage]:
        try:
            yield from self.saved
        except OctogenSnapshotError:
            if self.gone is None:
                raise
            self.gone(
                f"{self.walk.subject}: what was saved after page {self.saved_pages:,} is not there "
                "any more, or damaged, as by another run of the same partition. The service is "
                "asked for the rest."
            )
            if self.saver:
                self.saver.keep_first(self.saved_pages)
            return
        if self.ahead:
            yield self.ahead


class BulkReader(ClientThreads):
    """Iterates over consecutive pages of one walk at a time, while threads read ahead.

    Each thread has an event loop and a connection of its own and reads one walk after another.
    What is read and not yet consumed is bounded.

    Args:
        connection: How to reach the service.
        reads: The walks, begun in this order.
        concurrency: Walks that are read at the same time.
        pages_at_once: Pages to hand over together.
        read_ahead: Whether to ask for pages before the consumer does.
    """

    def __init__(
        self,
        connection: Connection,
        reads: Sequence[CatalogRead],
        concurrency: int,
        pages_at_once: int,
        *,
        read_ahead: bool = True,
    ) -> None:
        super().__init__(connection, min(concurrency, len(reads)), "octogen-read")
        self._waiting = deque(reads)
        self._pages_at_once = pages_at_once
        self._read_ahead = read_ahead
        self._asking = False
        self._ready: dict[CatalogRead, list[WirePage]] = {}
        self._full: deque[CatalogRead] = deque()

    def __iter__(self) -> Iterator[tuple[CatalogRead, list[WirePage]] | None]:
        """Batches; None about every second in which there is none yet."""
        while not self._is_exhausted():
            yield self._next()

    def _is_exhausted(self) -> bool:
        with self._changed:
            return not (self._working or self._ready or self._is_over())

    def _next(self) -> tuple[CatalogRead, list[WirePage]] | None:
        """A full batch of one walk, or what is left when it is all there; None if none came."""
        with self._changed:
            self._asking = True
            self._changed.notify_all()
            self._changed.wait_for(
                lambda: self._full or self._is_over() or not self._working,
                timeout=POLL_SECONDS,
            )
            self._asking = False
            self._raise_if_over()
            if self._full:
                read = self._full.popleft()
            elif self._ready and not self._working:
                read = next(iter(self._ready))
            else:
                return None
            pages = self._ready.pop(read)
            self._changed.notify_all()
            return read, pages

    async def _work(self, client: OctogenClient) -> None:
        while read := self._take():
            with read.saver or contextlib.nullcontext():
                await self._read(client, read)

    def _take(self) -> CatalogRead | None:
        with self._changed:
            return self._waiting.popleft() if self._waiting and not self._is_over() else None

    async def _read(self, client: OctogenClient, read: CatalogRead) -> None:
        pages = read.pages(client)
        while self._wait_for_room(read) and (page := await anext(pages, None)):
            with self._changed:
                batch = self._ready.setdefault(read, [])
                batch.append(page)
                complete = len(batch) == self._pages_at_once or not page.next_cursor
                if complete and read not in self._full:
                    self._full.append(read)
                    self._changed.notify_all()

    def _wait_for_room(self, read: CatalogRead) -> bool:
        with self._changed:
            self._changed.wait_for(lambda: self._is_over() or self._has_room(read))
            if self._is_over():
                raise ClosedError
        return True

    def _has_room(self, read: CatalogRead) -> bool:
        unread = len(self._ready.get(read, ()))
        if self._read_ahead:
            return unread < 2 * self._pages_at_once
        return self._asking and unread < self._pages_at_once
