"""BulkReader: reads the pages of many catalogs in threads, for one consumer."""

from __future__ import annotations

import contextlib
from collections import deque
from typing import TYPE_CHECKING

from octogen_dagster.api.cancellation import ClosedError
from octogen_dagster.frames.client_threads import POLL_SECONDS, ClientThreads

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from octogen_dagster.api.client import OctogenClient
    from octogen_dagster.api.connection import Connection
    from octogen_dagster.frames.catalog_read import CatalogRead
    from octogen_dagster.frames.wire import WirePage

MAX_PAGES_PER_BATCH = 10


class BulkReader(ClientThreads):
    """Iterates over batches of consecutive pages of one catalog while threads read ahead.

    Each thread reads one catalog after another. At most two batches of each catalog are read and
    not yet consumed.

    Args:
        connection: The settings of the service.
        reads: The catalogs, in the order in which they are begun.
        concurrency: The number of catalogs that are read at the same time.
        pages_per_batch: The number of pages in a full batch.
        read_ahead: False if a page is requested only while the consumer waits for a batch.
    """

    def __init__(
        self,
        connection: Connection,
        reads: Sequence[CatalogRead],
        concurrency: int,
        pages_per_batch: int,
        *,
        read_ahead: bool = True,
    ) -> None:
        super().__init__(connection, min(concurrency, len(reads)), "octogen-read")
        self._waiting = deque(reads)
        self._pages_per_batch = pages_per_batch
        self._read_ahead = read_ahead
        self._asking = False
        self._ready: dict[CatalogRead, list[WirePage]] = {}
        self._full: deque[CatalogRead] = deque()

    def __iter__(self) -> Iterator[tuple[CatalogRead, list[WirePage]] | None]:
        """Yield batches, and None about every second while there is none yet."""
        while not self._is_exhausted():
            yield self._next()

    def _is_exhausted(self) -> bool:
        with self._changed:
            return not (self._working or self._ready or self._is_over())

    def _next(self) -> tuple[CatalogRead, list[WirePage]] | None:
        """Return a full batch, or a rest once all pages are read; None if there is none yet."""
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
                complete = len(batch) == self._pages_per_batch or not page.next_cursor
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
            return unread < 2 * self._pages_per_batch
        return self._asking and unread < self._pages_per_batch
