"""BulkReader: reads the pages of many catalogs in threads, for one consumer."""

from __future__ import annotations

import contextlib
import math
import threading
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from octogen_dagster.background import StoppedError
from octogen_dagster.frames.client_threads import POLL_SECONDS, ClientThreads

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from octogen_dagster.api.blocking import BlockingClient
    from octogen_dagster.api.service import Service
    from octogen_dagster.frames.catalog_read import CatalogRead
    from octogen_dagster.frames.decode import ProductPage

MAX_PAGES_PER_BATCH = 10
MAX_BATCH_BYTES = 4 << 20
MAX_READ_AHEAD_BYTES = 16 << 20


class BulkReader(ClientThreads):
    """Iterates over batches of consecutive pages of one catalog while threads read ahead.

    Each thread reads one catalog after another. Of the pages that are not yet consumed, a catalog
    may have one, or up to two batches while those of all catalogs are below `MAX_READ_AHEAD_BYTES`.

    Args:
        service: The service.
        reads: The catalogs, in the order in which they are begun.
        concurrency: The number of catalogs that are read at the same time.
        pages_per_batch: The number of pages in a full batch; fewer if they are large or memory is
            short.
        read_ahead: False if a page is requested only while the consumer waits for a batch.
    """

    def __init__(
        self,
        service: Service,
        reads: Sequence[CatalogRead],
        concurrency: int,
        pages_per_batch: int,
        *,
        stop: threading.Event,
        check: Callable[[], object] = lambda: None,
        read_ahead: bool = True,
    ) -> None:
        super().__init__(service, min(concurrency, len(reads)), "octogen-read", stop, check)
        self._waiting = deque(reads)
        self._pages_per_batch = pages_per_batch
        self._read_ahead = read_ahead
        self._asking = False
        self._ready: dict[CatalogRead, _Batch] = {}
        self._ready_bytes = 0
        self._full: deque[CatalogRead] = deque()
        self._blocked: dict[CatalogRead, threading.Event] = {}

    def __iter__(self) -> Iterator[tuple[CatalogRead, list[ProductPage]] | None]:
        """Yield batches, and None about every second while there is none yet."""
        while not self._is_exhausted():
            yield self._next()

    def _is_exhausted(self) -> bool:
        with self._changed:
            return not (self._working or self._ready or self._is_over())

    def _next(self) -> tuple[CatalogRead, list[ProductPage]] | None:
        """Return a full batch, or the longest if none will fill up; None if there is none yet."""
        with self._changed:
            self._asking = True
            if not self._read_ahead:
                self._wake()
            self._changed.wait_for(
                lambda: self._full or self._must_take() or self._is_over(), timeout=POLL_SECONDS
            )
            self._asking = False
            self._raise_if_over()
            if self._full:
                read = self._full.popleft()
            elif self._ready and self._must_take():
                read = max(self._ready, key=lambda each: len(self._ready[each].pages))
            else:
                return None
            batch = self._ready.pop(read)
            self._ready_bytes -= batch.size
            self._wake(len(batch.pages) + 1)
            return read, batch.pages

    def _must_take(self) -> bool:
        """True if no batch will fill up before one is consumed."""
        return not self._working or self._ready_bytes >= MAX_READ_AHEAD_BYTES

    def _work(self, client: BlockingClient) -> None:
        while read := self._take():
            with read.saver or contextlib.nullcontext():
                self._read(client, read)

    def _take(self) -> CatalogRead | None:
        with self._changed:
            return self._waiting.popleft() if self._waiting and not self._is_over() else None

    def _read(self, client: BlockingClient, read: CatalogRead) -> None:
        pages = read.pages(client)
        while self._wait_for_room(read) and (page := next(pages, None)):
            with self._changed:
                batch = self._ready.setdefault(read, _Batch())
                batch.pages.append(page)
                size = page.size
                batch.size += size
                self._ready_bytes += size
                is_newly_full = self._is_complete(batch) and read not in self._full
                if is_newly_full:
                    self._full.append(read)
                if is_newly_full or self._must_take():
                    self._changed.notify_all()

    def _is_complete(self, batch: _Batch) -> bool:
        return (
            len(batch.pages) >= self._pages_per_batch
            or batch.size >= MAX_BATCH_BYTES
            or not batch.pages[-1].next_cursor
        )

    def _wait_for_room(self, read: CatalogRead) -> bool:
        while True:
            with self._changed:
                if self._is_over():
                    raise StoppedError
                if self._has_room(read):
                    return True
                woken = self._blocked[read] = threading.Event()
            while not (woken.wait(POLL_SECONDS) or self._is_over()):
                pass

    def _wake(self, most: int | None = None) -> None:
        """Wake blocked catalogs, first those without pages, then those whose batch is longest."""

        def unread(read: CatalogRead) -> float:
            batch = self._ready.get(read)
            return len(batch.pages) if batch else math.inf

        with self._changed:
            for read in sorted(self._blocked, key=unread, reverse=True)[:most]:
                self._blocked.pop(read).set()

    def close(self) -> None:
        """`ClientThreads.close`."""
        super().close()
        self._wake()

    def _run(self) -> None:
        super()._run()
        self._wake()  # an error ends all catalogs

    def _has_room(self, read: CatalogRead) -> bool:
        batch = self._ready.get(read)
        if not self._read_ahead:
            return self._asking and not (batch and self._is_complete(batch))
        if batch is None:
            return True
        return (
            len(batch.pages) < 2 * self._pages_per_batch
            and self._ready_bytes < MAX_READ_AHEAD_BYTES
        )


@dataclass(slots=True)
class _Batch:
    """Consecutive pages of one catalog that are not yet consumed, and their bytes."""

    pages: list[ProductPage] = field(default_factory=list)
    size: int = 0
