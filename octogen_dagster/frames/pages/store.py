"""PageStore: the saved pages of one snapshot.

Each read has a folder of its own, `.<name>.pages/<read>/`; see `saved_read`. There are no locks.
"""

from __future__ import annotations

import re
import uuid
from collections import defaultdict
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING

from octogen_dagster.errors import OctogenSnapshotError
from octogen_dagster.frames.pages.records import READ_NAME, ReadRecord, decode_record
from octogen_dagster.frames.pages.saved_read import SavedRead
from octogen_dagster.frames.pages.segments import SegmentName
from octogen_dagster.frames.pages.storage import PageStorage

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Set

    from upath import UPath

RESUME_WITHIN = timedelta(hours=6)
_MAX_READ_DURATION = timedelta(hours=24)
_READ_FOLDER = re.compile(r"(\d{8}T\d{6}Z)-[0-9a-f]{12}")
_TIME_FORMAT = "%Y%m%dT%H%M%SZ"


class PageStore:
    """The saved pages of one snapshot.

    Args:
        folder: A folder for this snapshot alone; it is made when the first segment is written.
        resume_within: The age up to which a read is continued.
        clock: Returns the present time, in UTC.
    """

    def __init__(
        self,
        folder: UPath,
        *,
        resume_within: timedelta = RESUME_WITHIN,
        clock: Callable[[], datetime] = lambda: datetime.now(timezone.utc),
    ) -> None:
        self.storage = PageStorage(folder)
        self.resume_within = resume_within
        self.now = clock

    def new_read(
        self, record: ReadRecord, warn: Callable[[str], None] = lambda _line: None
    ) -> SavedRead:
        """A read that begins now; its folder is made when something is saved.

        Args:
            record: The record of the read.
            warn: Called with a line if pages cannot be saved.
        """
        name = f"{self.now().astimezone(timezone.utc):{_TIME_FORMAT}}-{uuid.uuid4().hex[:12]}"
        return SavedRead(self.storage, name, record, warn=warn)

    def reads(self, log: Callable[[str], None]) -> list[SavedRead]:
        """List the saved reads that are not published, the newest first.

        Args:
            log: Called with a line about each read that cannot be used.
        """
        folders = _by_folder(self.storage.names())
        return [
            read
            for name in sorted(folders, reverse=True)
            if READ_NAME in folders[name] and (read := self._saved_read(name, folders[name], log))
        ]

    def discard(self, names: Collection[str]) -> None:
        """Remove reads whose pages are of no use, and what killed writers left beside them.

        Args:
            names: The names of the reads.

        Raises:
            OctogenSnapshotError: Some files cannot be removed.
        """
        folders = _by_folder(self.storage.names())
        files = {f"{name}/{file}" for name in names for file in folders.get(name, ())}
        records = {file for file in files if file.endswith(f"/{READ_NAME}")}
        # Without its record, what is left of a folder after a crash is continued by nobody.
        self.storage.remove(records, then=files - records)

    def discard_catalogs(self, names: Collection[str], catalogs: Collection[str | None]) -> None:
        """Remove the pages of some catalogs from reads, and the reads that have no others.

        Args:
            names: The names of the reads.
            catalogs: The keys of the catalogs.

        Raises:
            OctogenSnapshotError: A record is damaged, or some files cannot be removed.
        """
        folders = _by_folder(self.storage.names())
        useless: list[str] = []
        for name in names:
            if READ_NAME not in folders.get(name, ()):
                continue
            entries = enumerate(self._record(name).catalogs)
            places = {place for place, entry in entries if entry.catalog in catalogs}
            segments = _segments(folders[name])
            bad = [each for each in segments if each.catalog in places]
            if len(bad) == len(segments):
                useless.append(name)
            else:
                self.storage.remove([f"{name}/{each}" for each in bad])
        self.discard(useless)

    def remove_superseded(self, read: SavedRead, superseded: Collection[str]) -> None:
        """Remove the reads that nobody needs after this one was published.

        A read stays if it may still be under way: it has its record, began a short time ago and
        this one did not take its place.

        Args:
            read: The read that was published.
            superseded: The names of earlier reads whose place it took.

        Raises:
            OctogenSnapshotError: Some files cannot be removed.
        """
        folders = _by_folder(self.storage.names())
        useless = {
            name
            for name, files in folders.items()
            if READ_NAME not in files or not self._may_be_under_way(name)
        }
        self.discard({read.name, *superseded, *useless})

    def unusable_reason(self, started_at: datetime) -> str | None:
        """Say why a read is too old or too new to be continued; None if it is neither."""
        age = self.now() - started_at
        began = f"{started_at:%Y-%m-%d %H:%M} UTC"
        if age < timedelta(0):
            return f"the saved pages are of a read that begins later, at {began}: a clock jumped."
        if age > self.resume_within:
            return f"the saved pages are of a read that began at {began}, too long ago."
        return None

    def _may_be_under_way(self, name: str) -> bool:
        """True if the process that made a folder may still be at work; clocks may differ."""
        match = _READ_FOLDER.fullmatch(name)
        assert match
        began = datetime.strptime(match[1], _TIME_FORMAT).replace(tzinfo=timezone.utc)
        return self.now() - began < _MAX_READ_DURATION

    def _saved_read(
        self, name: str, files: Set[str], log: Callable[[str], None]
    ) -> SavedRead | None:
        try:
            read = SavedRead(self.storage, name, self._record(name), _segments(files))
            _ = read.search
        except OctogenSnapshotError as error:
            log(f"{error} The read is not continued.")
            return None
        return read

    def _record(self, name: str) -> ReadRecord:
        path = f"{name}/{READ_NAME}"
        return decode_record(self.storage.read(path), self.storage.folder / path)


def _by_folder(names: Set[str]) -> dict[str, set[str]]:
    """Group the files by read; files outside of the folders of reads are left out."""
    folders: defaultdict[str, set[str]] = defaultdict(set)
    for name in names:
        folder, slash, file = name.partition("/")
        if slash and _READ_FOLDER.fullmatch(folder):
            folders[folder].add(file)
    return folders


def _segments(files: Set[str]) -> list[SegmentName]:
    return [name for name in map(SegmentName.parsed, files) if name]
