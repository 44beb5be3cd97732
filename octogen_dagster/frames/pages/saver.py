"""PageSaver: the pages of one catalog, saved as they come. Where they go is in `saved_read`."""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING

from typing_extensions import Self

from octogen_dagster.errors import OctogenSnapshotError
from octogen_dagster.frames.pages.segments import SavedPage, Segment
from octogen_dagster.frames.pages.storage import RemovedError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from concurrent.futures import Future
    from types import TracebackType

    from octogen_dagster.frames.pages.saved_read import SavedRead
    from octogen_dagster.frames.pages.segments import SegmentName
    from octogen_dagster.frames.wire import WirePage

PAGES_PER_SEGMENT = 12
MAX_REPEATED_PAGES = 2 * PAGES_PER_SEGMENT + 2
"""The most pages that a resumed read asks for again: two segments, and two pages to compare."""


class PageSaver:
    """Saves the pages of one catalog while the next ones are read.

    A segment is written when the one before is, so a crash loses at most two for each catalog that
    is being read. Used in a `with`, a read that ends or fails loses none. When another run takes
    the place of this read and removes its folder, saving ends.

    Args:
        read: The read's folder.
        catalog: The catalog's place in the read's record.
        segments: The segments that are there already.
        generation: The contract of their pages.

    Attributes:
        segments: The segments so far, in order.
        generation: The contract of the pages (`OctogenClient.generation`).
    """

    def __init__(
        self,
        read: SavedRead,
        catalog: int,
        segments: Sequence[SegmentName] = (),
        generation: str = "",
    ) -> None:
        self.segments = list(segments)
        self.generation = generation
        self._read = read
        self._catalog = catalog
        self._unsaved: list[SavedPage] = []
        self._writing: Future[None] | None = None
        self._failure: OctogenSnapshotError | None = None
        self._closed = False
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
                self._begin_segment()
            return
        with contextlib.suppress(OctogenSnapshotError):
            self.flush()

    def add(self, page: WirePage) -> None:
        """Save the next page; a segment is written when it is full.

        Raises:
            OctogenSnapshotError: The segment before could not be written.
        """
        with self._lock:
            if not (self._closed or self._failure):
                self._unsaved.append(SavedPage.of(page))
            if len(self._unsaved) == PAGES_PER_SEGMENT:
                self._begin_segment()

    def flush(self) -> None:
        """Write what is not written yet, and wait for it.

        Raises:
            OctogenSnapshotError: It cannot be written, or something before it could not.
        """
        with self._lock:
            self._begin_segment()
            self._wait_for_segment()
            if self._failure:
                raise self._failure

    def close(self) -> None:
        """Save nothing more, and wait for the segment that is being written."""
        with self._lock:
            self._closed = True
            self._unsaved.clear()
            with contextlib.suppress(OctogenSnapshotError):
                self._wait_for_segment()

    def _begin_segment(self) -> None:
        self._wait_for_segment()
        if not self._unsaved:
            return
        segment = Segment(self.generation, self._unsaved)
        self._unsaved = []
        self._writing = self._read.storage.submit(lambda: self._write(segment))

    def _write(self, segment: Segment) -> None:
        self.segments.append(self._read.write(self._catalog, len(self.segments), segment))

    def _wait_for_segment(self) -> None:
        if self._writing is None:
            return
        writing, self._writing = self._writing, None
        try:
            writing.result()
        except OctogenSnapshotError as error:
            # Pages after a gap must not be joined to those before it.
            self._failure = error
            self._unsaved.clear()
            if not isinstance(error, RemovedError):
                raise
