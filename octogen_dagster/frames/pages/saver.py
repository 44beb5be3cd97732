"""PageSaver: saves the pages of one catalog as they come. Their files are in `saved_read`."""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING

from typing_extensions import Self

from octogen_dagster.errors import OctogenSnapshotError
from octogen_dagster.frames.pages.segments import CompressedSegment, compressed

if TYPE_CHECKING:
    from collections.abc import Sequence
    from concurrent.futures import Future
    from types import TracebackType

    from octogen_dagster.frames.decode import ProductPage
    from octogen_dagster.frames.pages.saved_read import SavedRead
    from octogen_dagster.frames.pages.segments import SegmentName

PAGES_PER_SEGMENT = 12
MAX_REPEATED_PAGES = 2 * PAGES_PER_SEGMENT + 2
"""The most pages that a resumed read requests again: two segments, and two pages to compare."""


class PageSaver:
    """Saves the pages of one catalog while the next ones are read.

    One segment is written at a time while the next one fills, so a crash loses at most two segments
    of each catalog that is being read. As a context manager it saves all pages of a read that ends
    or fails. Once pages cannot be saved, or another run removes the folder of the read, nothing
    more is saved, and the read goes on.

    Args:
        read: The folder of the read.
        catalog: The place of the catalog in the record of the read.
        segments: The segments that exist already.
        generation: The generation of the contract of their pages.

    Attributes:
        segments: The segments so far, in order.
        generation: The generation of the contract of the pages (`OctogenClient.generation`).
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
        self._unsaved: list[bytes] = []
        self._writing: Future[None] | None = None
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

    def add(self, page: ProductPage) -> None:
        """Add the next page; a full segment is written in the background.

        Raises:
            OctogenSnapshotError: Nothing at all can be written to the bucket.
        """
        if self._closed or self._read.failure:
            return
        content = compressed(page)
        with self._lock:
            if not self._closed:
                self._unsaved.append(content)
            if len(self._unsaved) == PAGES_PER_SEGMENT:
                self._begin_segment()

    def flush(self) -> None:
        """Write the pages that are not written yet, and block until they are.

        Raises:
            OctogenSnapshotError: Nothing at all can be written to the bucket.
        """
        with self._lock:
            self._begin_segment()
            self._wait_for_segment()

    def close(self) -> None:
        """Save no more pages, and block until the current segment is written."""
        with self._lock:
            self._closed = True
            self._unsaved.clear()
            with contextlib.suppress(OctogenSnapshotError):
                self._wait_for_segment()

    def _begin_segment(self) -> None:
        self._wait_for_segment()
        if self._read.failure:
            # Pages after a gap must not be joined to those before it.
            self._unsaved.clear()
        if not self._unsaved:
            return
        segment = CompressedSegment(self.generation, self._unsaved)
        self._unsaved = []
        self._writing = self._read.storage.submit(lambda: self._write(segment))

    def _write(self, segment: CompressedSegment) -> None:
        self.segments.append(self._read.write(self._catalog, len(self.segments), segment))

    def _wait_for_segment(self) -> None:
        if self._writing is None:
            return
        writing, self._writing = self._writing, None
        try:
            writing.result()
        except OctogenSnapshotError as error:
            self._read.give_up(error)
