"""One read's folder of saved pages: `read.json` and numbered segments.

Only the process that reads writes to it, so runs that read the same at once cannot mix.
"""

from __future__ import annotations

import functools
import threading
from dataclasses import replace
from typing import TYPE_CHECKING

from octogen_dagster.errors import OctogenSnapshotError
from octogen_dagster.frames.pages.records import READ_NAME, ReadRecord
from octogen_dagster.frames.pages.segments import Segment, SegmentName, digest

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from octogen_dagster.frames.pages.storage import PageStorage
    from octogen_dagster.frames.search import ProductSearch
    from octogen_dagster.frames.wire import WirePage


class SavedRead:
    """The folder of one read.

    Args:
        storage: The files of the snapshot's reads.
        name: The folder's name.
        record: What the read is of.
        segments: The names of its segments, in any order.
    """

    def __init__(
        self,
        storage: PageStorage,
        name: str,
        record: ReadRecord,
        segments: Sequence[SegmentName] = (),
    ) -> None:
        self.storage = storage
        self.name = name
        self.record = record
        self._segments = sorted(segments)
        self._begun = bool(segments)
        self._lock = threading.Lock()

    @functools.cached_property
    def search(self) -> ProductSearch:
        """The search of the read.

        Raises:
            OctogenSnapshotError: This version does not know it.
        """
        return self.record.product_search()

    def segments_of(self, catalog: int) -> list[SegmentName]:
        """The segments of a catalog from its first, up to the first gap.

        Args:
            catalog: The catalog's place in the record.
        """
        found: list[SegmentName] = []
        for name in self._segments:
            if name.catalog == catalog:
                if name.number != len(found):
                    break
                found.append(name)
        return found

    def segment(self, name: SegmentName) -> Segment:
        """A segment, verified.

        Raises:
            RemovedError: It is not there.
            OctogenSnapshotError: It is damaged or has another format.
        """
        content = self.storage.read(self._path(name))
        place = self.storage.folder / self._path(name)
        if digest(content) != name.digest:
            raise OctogenSnapshotError(
                f"The saved pages {place} are damaged: {len(content):,} bytes that are not what "
                "was written."
            )
        try:
            return Segment.decoded(content)
        except ValueError:
            raise OctogenSnapshotError(
                f"The saved pages {place} are whole but have a format that this version of "
                "octogen-dagster does not read."
            ) from None

    def pages(self, segments: Sequence[SegmentName], subject: str) -> Iterator[WirePage]:
        """The pages of segments, checked as if they had just come.

        Args:
            segments: The segments, in order.
            subject: What was read, which error messages begin with.

        Raises:
            OctogenSnapshotError: A file is gone or damaged.
        """
        for name in segments:
            for page in self.segment(name).pages:
                yield page.parsed(subject)

    def begin(self) -> None:
        """Make the folder with its record, unless it is there.

        Raises:
            OctogenSnapshotError: It cannot be written.
        """
        with self._lock:
            if not self._begun:
                self.storage.make_folder(self.name)
                try:
                    self.storage.write(f"{self.name}/{READ_NAME}", self.record.encoded())
                except OctogenSnapshotError:
                    self.storage.remove([f"{self.name}/{READ_NAME}"])  # and its empty folder
                    raise
                self._begun = True

    def write(self, catalog: int, number: int, segment: Segment) -> SegmentName:
        """Save a segment.

        Args:
            catalog: The catalog's place in the record.
            number: The segment's place among those of the catalog.
            segment: The segment.

        Raises:
            RemovedError: Another run removed the folder.
            OctogenSnapshotError: It cannot be written.
        """
        content = segment.encoded()
        name = SegmentName(catalog, number, digest(content))
        self.begin()
        self.storage.write(self._path(name), content)
        return name

    def take_over(
        self, other: SavedRead, segments: Sequence[SegmentName], catalog: int
    ) -> list[SegmentName]:
        """Take copies of another read's segments as the first ones of a catalog.

        Args:
            other: The other read.
            segments: Its segments, in order.
            catalog: The catalog's place in this read's record.

        Raises:
            RemovedError: A run that was faster removed them.
            OctogenSnapshotError: They cannot be copied.
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
            OctogenSnapshotError: They cannot be removed.
        """
        self.storage.remove([self._path(name) for name in segments])

    def _path(self, name: SegmentName) -> str:
        return f"{self.name}/{name}"
