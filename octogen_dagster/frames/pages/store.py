"""The saved pages of one snapshot: a folder for each read, and which of them is archived.

`.<name>.pages/<read>/` belongs to one read; see `saved_read`. `archive.json` beside the folders
names the read that the snapshot can be rebuilt from. Nothing is locked.
"""

from __future__ import annotations

import re
import uuid
from collections import defaultdict
from datetime import timedelta
from typing import TYPE_CHECKING

from octogen_dagster.errors import OctogenSnapshotError
from octogen_dagster.frames.pages.records import (
    ARCHIVE_NAME,
    READ_NAME,
    PageArchive,
    ReadRecord,
    decode_record,
)
from octogen_dagster.frames.pages.saved_read import SavedRead
from octogen_dagster.frames.pages.segments import SegmentName
from octogen_dagster.frames.pages.storage import PageStorage, RemovedError
from octogen_dagster.frames.window import utc_now

if TYPE_CHECKING:
    from collections.abc import Callable, Set
    from datetime import datetime

    from upath import UPath

RESUME_WITHIN = timedelta(hours=6)
_READ_FOLDER = re.compile(r"\d{8}T\d{6}Z-[0-9a-f]{12}")


class PageStore:
    """The saved pages of one snapshot.

    Args:
        folder: Belongs to this snapshot alone; it is made when the first segment is written.
        keep: Archive the pages of a read that is published.
        resume_within: The age up to which a read is continued.
        clock: Returns the present time.
    """

    def __init__(
        self,
        folder: UPath,
        *,
        keep: bool = False,
        resume_within: timedelta = RESUME_WITHIN,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        self.storage = PageStorage(folder)
        self.keep = keep
        self.resume_within = resume_within
        self.now = clock

    def new_read(self, record: ReadRecord) -> SavedRead:
        """A read that begins now; its folder is made when something is saved."""
        name = f"{self.now():%Y%m%dT%H%M%SZ}-{uuid.uuid4().hex[:12]}"
        return SavedRead(self.storage, name, record)

    def reads(self, log: Callable[[str], None]) -> list[SavedRead]:
        """The reads that were saved and neither archived nor published, the newest first.

        While the archive's record is damaged there are none, since they cannot be told apart.

        Args:
            log: Takes a line on each read that cannot be used.
        """
        folders = _by_folder(self.storage.names())
        archived = self._archived_names()
        if archived is None:
            return []
        names = sorted(folders.keys() - archived, reverse=True)
        return [read for name in names if (read := self._saved_read(name, folders[name], log))]

    def archived_read(self) -> SavedRead | None:
        """The read that the snapshot can be rebuilt from.

        Raises:
            OctogenSnapshotError: A record is damaged.
        """
        archive = self._archive()
        if archive is None:
            return None
        files = _by_folder(self.storage.names()).get(archive.read, set())
        return SavedRead(self.storage, archive.read, self._record(archive.read), _segments(files))

    def archive(self, read: SavedRead, segments: Set[SegmentName]) -> None:
        """Make a whole read the one that the snapshot can be rebuilt from.

        Call it before the snapshot is published: a crash in between leaves a day that can be
        rebuilt, and never one that was published and cannot be.

        Args:
            read: The read.
            segments: All of its segments.

        Raises:
            OctogenSnapshotError: A segment is missing, or nothing can be written.
        """
        read.begin()
        names = {f"{read.name}/{READ_NAME}", *(f"{read.name}/{name}" for name in segments)}
        if missing := names - self.storage.names():
            raise RemovedError(
                f"{len(missing)} files of saved pages in {self.storage.folder} were removed while "
                "they were in use, as by another run of the same partition. The snapshot itself "
                "is whole; its pages are not archived. Materialize it again to archive them."
            )
        self.storage.sync(names)
        replaced = (self._archived_names() or set()) - {read.name}
        content = PageArchive(read=read.name, replaced=sorted(replaced)).encoded()
        self.storage.write(ARCHIVE_NAME, content, durable=True)

    def remove_superseded(self, read: SavedRead) -> None:
        """Remove the reads that nobody needs after this one was published.

        A read stays if it is archived, or if it may still be under way: it began a short time ago
        and this one did not take its place.

        Raises:
            OctogenSnapshotError: Some files cannot be removed.
        """
        folders = _by_folder(self.storage.names())
        superseded = {read.name, *read.record.supersedes}
        try:
            archive = self._archive()
        except OctogenSnapshotError:  # any folder may be the archived one, except these
            useless = superseded - ({read.name} if self.keep else set())
        else:
            kept = {archive.read} if archive else set()
            superseded |= set(archive.replaced) if archive else set()
            useless = {
                name
                for name in folders.keys() - kept
                if name in superseded or not self._may_be_under_way(name)
            }
        files = {f"{name}/{file}" for name in useless for file in folders.get(name, ())}
        records = {file for file in files if file.endswith(f"/{READ_NAME}")}
        # Without its record, what is left of a folder after a crash is continued by nobody.
        self.storage.remove(records)
        self.storage.remove(files - records)
        self.storage.remove_abandoned(ARCHIVE_NAME)

    def unusable_reason(self, started_at: datetime) -> str | None:
        """Why a read is too old to be continued, or too new; None if it is neither."""
        age = self.now() - started_at
        began = f"{started_at:%Y-%m-%d %H:%M} UTC"
        if age < timedelta(0):
            return f"the saved pages are of a read that begins later, at {began}: a clock jumped."
        if age > self.resume_within:
            return f"the saved pages are of a read that began at {began}, too long ago."
        return None

    def _may_be_under_way(self, name: str) -> bool:
        try:
            record = self._record(name)
        except OctogenSnapshotError:
            return False
        return self.unusable_reason(record.started_at) is None

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
        return decode_record(ReadRecord, self.storage.read(path), self.storage.folder / path)

    def _archive(self) -> PageArchive | None:
        try:
            content = self.storage.read(ARCHIVE_NAME)
        except RemovedError:
            return None
        return decode_record(PageArchive, content, self.storage.folder / ARCHIVE_NAME)

    def _archived_names(self) -> set[str] | None:
        """The reads that are or were archived; None if the archive's record is damaged."""
        try:
            archive = self._archive()
        except OctogenSnapshotError:
            return None
        return {archive.read, *archive.replaced} if archive else set()


def _by_folder(names: Set[str]) -> dict[str, set[str]]:
    """The files of each read's folder; other files are none of this store's."""
    folders: defaultdict[str, set[str]] = defaultdict(set)
    for name in names:
        folder, slash, file = name.partition("/")
        if slash and _READ_FOLDER.fullmatch(folder):
            folders[folder].add(file)
    return folders


def _segments(files: Set[str]) -> list[SegmentName]:
    return [name for name in map(SegmentName.parsed, files) if name]
