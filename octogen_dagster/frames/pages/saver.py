"""PageSaver: the pages of one walk, saved as they come. Where they are kept is in `checkpoint`."""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING

from typing_extensions import Self

from octogen_dagster.errors import OctogenSnapshotError
from octogen_dagster.frames.pages.segments import SavedPage, Segment, digest_in, write_segment

if TYPE_CHECKING:
    from concurrent.futures import Future
    from datetime import datetime
    from types import TracebackType

    from octogen_dagster.frames.pages.store import PageStore, SavedPages
    from octogen_dagster.frames.wire import WirePage

PAGES_IN_A_SEGMENT = 12
MAX_REPEATED_PAGES = 2 * PAGES_IN_A_SEGMENT + 2
"""Pages that a continued read asks for again at most: two segments, and two pages to compare."""


class PageSaver:
    """Saves the pages of one walk as they come, while the next ones are on their way.

    A segment is written when the one before is, so that a crash loses at most two of each walk that
    is under way. Used in a `with`, a walk that ended or failed loses none.

    Args:
        store: Where to.
        root: `walk_root` of what is asked for.
        saved: Pages that are there already.
        started_at: When the read began.
        catalogs: `digest_of` the catalogs that the whole read is of.

    Attributes:
        root: What the chain begins with.
        segments: The files of the walk so far, in order.
        generation: The contract the pages come by (`OctogenClient.generation`).
    """

    def __init__(
        self,
        store: PageStore,
        root: str,
        saved: SavedPages | None,
        started_at: datetime,
        catalogs: str,
    ) -> None:
        self.segments: list[str] = list(saved.segments) if saved else []
        self._saved_pages = list(saved.pages_in_segments) if saved else []
        self.generation = saved.generation if saved else ""
        self.root = root
        self._store = store
        self._started_at = started_at
        self._catalogs = catalogs
        self._unsaved: list[SavedPage] = []
        self._writing: Future[str] | None = None
        self._ended = False
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        if error is None:
            with self._lock:
                self._begin()
            return
        with contextlib.suppress(OctogenSnapshotError):
            self.flush()

    def add(self, page: WirePage) -> None:
        """Note the next page; a segment is begun when it is full.

        Raises:
            OctogenSnapshotError: The one before could not be written.
        """
        with self._lock:
            if not self._ended:
                self._unsaved.append(SavedPage.of(page))
            if len(self._unsaved) == PAGES_IN_A_SEGMENT:
                self._begin()

    def keep_first(self, pages: int) -> None:
        """Continue after the first of the segments that were there already.

        Args:
            pages: How many pages are in those; the others are gone.
        """
        with self._lock:
            kept = 0
            for count in self._saved_pages:
                if count > pages:
                    break
                pages -= count
                kept += 1
            del self.segments[kept:]

    def flush(self) -> None:
        """Write what is not written yet, and wait for it.

        Raises:
            OctogenSnapshotError: It cannot be written.
        """
        with self._lock:
            self._begin()
            self._settle()

    def settle(self) -> None:
        """Wait for the segment that is being written.

        Raises:
            OctogenSnapshotError: It cannot be written.
        """
        with self._lock:
            self._settle()

    def discard(self) -> None:
        """Remove what was saved, and save nothing more."""
        with self._lock:
            self._end()
            with contextlib.suppress(OctogenSnapshotError):
                self._settle()
            self._store.discard(self.segments)

    def _begin(self) -> None:
        self._settle()
        if not self._unsaved:
            return
        segment = Segment(self._started_at, self.generation, self._unsaved, self._catalogs)
        self._unsaved = []
        previous = digest_in(self.segments[-1]) if self.segments else self.root
        self._writing = self._store.begin(
            lambda: self._store.write(write_segment(segment), previous)
        )

    def _settle(self) -> None:
        if self._writing is None:
            return
        writing, self._writing = self._writing, None
        try:
            self.segments.append(writing.result())
        except BaseException:
            self._end()  # or what follows would close up the gap
            raise

    def _end(self) -> None:
        self._ended = True
        self._unsaved.clear()
