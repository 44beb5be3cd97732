"""SavedRead: the folder with the saved pages of one read, `read.json` and numbered segments.

Only the process that makes the read writes to its folder, so runs side by side cannot mix pages.
The record is the first file, so another run may remove a folder without one, and at any time: the
process makes it again until it has its record.
"""

from __future__ import annotations

import functools
import threading
from dataclasses import replace
from typing import TYPE_CHECKING

from octogen_dagster.errors import OctogenSnapshotError
from octogen_dagster.frames.pages.records import READ_NAME, ReadRecord
from octogen_dagster.frames.pages.segments import Segment, SegmentName, digest
from octogen_dagster.frames.pages.storage import RemovedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from octogen_dagster.api.search import ProductSearch
    from octogen_dagster.frames.decode import ProductPage
    from octogen_dagster.frames.pages.segments import CompressedSegment
    from octogen_dagster.frames.pages.storage import PageStorage


class SavedRead:
    """The folder of one read.

    Args:
        storage: The files of all reads of the snapshot.
        name: The name of the folder.
        record: The record of the read.
        segments: The names of the segments in the folder, in any order.
        warn: Called with a line if pages cannot be saved.

    Attributes:
        failure: Why nothing more is saved; None while pages are saved.
    """

    def __init__(
        self,
        storage: PageStorage,
        name: str,
        record: ReadRecord,
        segments: Sequence[SegmentName] = (),
        warn: Callable[[str], None] = lambda _line: None,
    ) -> None:
        self.storage = storage
        self.name = name
        self.record = record
        self._segments = sorted(segments)
        self.failure: OctogenSnapshotError | None = None
        self._warn = warn
        self._begun = bool(segments)
        self._lock = threading.Lock()

    @functools.cached_property
    def search(self) -> ProductSearch:
        """The search of the read.

        Raises:
            OctogenSnapshotError: The search has a field that this version does not know.
        """
        return self.record.product_search()

    def segments_of(self, catalog: int) -> list[SegmentName]:
        """Return the segments of a catalog, in order, up to the first gap.

        Args:
            catalog: The place of the catalog in the record.
        """
        found: list[SegmentName] = []
        for name in self._segments:
            if name.catalog == catalog:
                if name.number != len(found):
                    break
                found.append(name)
        return found

    def segment(self, name: SegmentName) -> Segment:
        """Read and verify a segment.

        Raises:
            RemovedError: The segment is not there.
            OctogenSnapshotError: The segment is damaged or has another format.
        """
        content = self.storage.read(self._path(name))
        place = self.storage.folder / self._path(name)
        if digest(content) != name.digest:
            raise OctogenSnapshotError(
                f"The saved pages {place} are damaged: {len(content):,} bytes that are not what "
                "was written. Let nothing else write there."
            )
        try:
            return Segment.decoded(content)
        except ValueError:
            raise OctogenSnapshotError(
                f"The saved pages {place} are whole but have a format that this version of "
                "octogen-dagster does not read. Update octogen-dagster."
            ) from None

    def pages(self, segments: Sequence[SegmentName]) -> Iterator[ProductPage]:
        """Yield the pages of segments.

        Args:
            segments: The segments, in order.

        Raises:
            OctogenSnapshotError: A segment was removed or is damaged.
        """
        for name in segments:
            yield from self.segment(name).pages

    def begin(self) -> None:
        """Make the folder and write its record, unless that was done before.

        Raises:
            OctogenSnapshotError: The folder cannot be written.
        """
        with self._lock:
            if not self._begun:
                try:
                    self.storage.create(f"{self.name}/{READ_NAME}", self.record.encoded())
                except OctogenSnapshotError:
                    self.storage.remove([])  # but the folder, which is empty
                    raise
                self._begun = True

    def give_up(self, error: OctogenSnapshotError) -> None:
        """Save nothing more: the read itself needs no saved pages.

        Raises:
            OctogenSnapshotError: It is the same error. Nothing at all can be written to the bucket,
                so the snapshot could not be published either.
        """
        if not self._begun and not self.storage.is_local:
            raise error
        with self._lock:
            is_first = self.failure is None
            self.failure = self.failure or error
        if is_first and not isinstance(error, RemovedError):
            self._warn(
                f"{error} The read goes on and saves no more pages: if it fails, those that are "
                "not saved are requested, and paid for, again."
            )

    def write(self, catalog: int, number: int, segment: Segment | CompressedSegment) -> SegmentName:
        """Save a segment.

        Args:
            catalog: The place of the catalog in the record.
            number: The place of the segment among those of the catalog.
            segment: The segment.

        Raises:
            RemovedError: Another run removed the folder.
            OctogenSnapshotError: The segment cannot be written.
        """
        content = segment.encoded()
        name = SegmentName(catalog, number, digest(content))
        self.begin()
        self.storage.write(self._path(name), content)
        return name

    def take_over(
        self, other: SavedRead, segments: Sequence[SegmentName], catalog: int
    ) -> list[SegmentName]:
        """Copy segments of another read and make them the first ones of a catalog.

        Args:
            other: The other read.
            segments: The segments of the other read, in order.
            catalog: The place of the catalog in the record of this read.

        Raises:
            RemovedError: Another run removed the segments meanwhile.
            OctogenSnapshotError: The segments cannot be copied.
        """
        self.begin()
        taken = [replace(name, catalog=catalog) for name in segments]
        try:
            self.storage.copy(
                [
                    (other._path(source), self._path(target))
                    for source, target in zip(segments, taken, strict=True)
                ]
            )
        except OctogenSnapshotError:
            self.remove(taken)  # or they would stand among the segments that are read anew
            raise
        return taken

    def remove(self, segments: Sequence[SegmentName]) -> None:
        """Remove segments.

        Raises:
            OctogenSnapshotError: A segment cannot be removed.
        """
        self.storage.remove([self._path(name) for name in segments])

    def _path(self, name: SegmentName) -> str:
        return f"{self.name}/{name}"
