"""Saved pages: what survives a crash of a read, and what a past day can be rebuilt from.

A page is kept as it came. Some pages make a segment, a small file whose name is the hash of its
content and of the segment before it, so the segments of one walk form a chain from the hash of
what was asked for. A file that is cut, damaged or of another search is never taken for part of a
chain, and runs that read the same at once grow branches that do not mix: nothing has to be locked,
on a file system or an object store.

When a read is published its segments are removed or, if they are to be kept, named by a manifest
just before: the landed pages.
"""

from __future__ import annotations

import contextlib
import os
import uuid
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING

import msgspec

from octogen_dagster.errors import OctogenSnapshotError
from octogen_dagster.files import sync
from octogen_dagster.frames.pages.segments import (
    SUFFIX,
    VERSION,
    Landing,
    branches_from,
    digest_in,
    read_segment,
    segment_name,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence
    from concurrent.futures import Future

    from upath import UPath

    from octogen_dagster.frames.pages.segments import Segment, Segments
    from octogen_dagster.frames.wire import WirePage

RESUME_WITHIN = timedelta(hours=6)
_MANIFEST = "landed.json"
_UNFINISHED = ".unfinished"
_FILES_AT_ONCE = 8

TimeWindow = tuple[datetime, datetime]


@dataclass(frozen=True)
class SavedPages:
    """Consecutive pages of one walk, from its first, that need not be asked for.

    Attributes:
        root: What the chain begins with.
        segments: The files, in order.
        started_at: When the read that brought them began.
        generation: The contract the service answered.
        catalogs: `digest_of` the catalogs of the read that brought the last ones.
        first_page: Page 1.
        last_page: The last of them.
        last_cursor: What the last one was asked for with; None for page 1.
        pages_in_segments: How many are in each of the files.
        next_cursor: What the page after the last one is asked for with; None if there is none.
    """

    store: PageStore
    root: str
    segments: Sequence[str]
    subject: str
    started_at: datetime
    generation: str
    catalogs: str
    first_page: WirePage
    last_page: WirePage
    last_cursor: str | None
    pages_in_segments: Sequence[int]
    next_cursor: str | None

    @property
    def pages(self) -> int:
        """How many there are."""
        return sum(self.pages_in_segments)

    def __iter__(self) -> Iterator[WirePage]:
        return self.store.pages(self.root, self.segments, self.subject)

    def is_stale(self, page: WirePage) -> bool:
        """Whether the page that came for `next_cursor` is page 1 again: the cursor was forgotten.

        A page that mostly repeats page 1 counts: to begin again costs time, to go on would mix
        two states of the catalog.
        """
        repeated = len(set(page.uuids) & set(self.first_page.uuids))
        return 2 * repeated > len(page.uuids) or page.next_cursor == self.first_page.next_cursor


class PageStore:
    """Where the pages of one snapshot's reads are saved.

    Args:
        folder: Belongs to this snapshot alone; made when the first segment is written.
        keep: Whether the pages of a published read are kept as landed pages.
        resume_within: How old the beginning of a read may be that is continued.
    """

    def __init__(
        self, folder: UPath, *, keep: bool = False, resume_within: timedelta = RESUME_WITHIN
    ) -> None:
        self.folder = folder
        self.keep = keep
        self.resume_within = resume_within
        self._is_local = folder.protocol in ("", "file", "local")
        self._abandoned: set[str] = set()
        self._writers = ThreadPoolExecutor(_FILES_AT_ONCE, thread_name_prefix="octogen-save")

    def segments(self) -> Segments:
        """The files of saved pages that are not landed, by what they follow.

        Where the manifest is damaged they cannot be told apart, so there are none.
        """
        landed = self._landed_names()
        segments: Segments = {}
        for name in sorted(self._names() - landed) if landed is not None else ():
            segments.setdefault(name.partition("-")[0], []).append(name)
        return segments

    def chains(
        self,
        root: str,
        subject: str,
        segments: Segments,
        log: Callable[[str], None],
        window: TimeWindow | None = None,
    ) -> Iterator[SavedPages]:
        """The usable chains, the longest first.

        Args:
            root: `walk_root` of what is asked for.
            subject: What is read: "Catalog 'acme'".
            segments: `segments()`.
            log: Takes a line on each chain that is not used, or not wholly.
            window: A time that is over: a chain that is whole counts however old it is.
        """
        chains = [
            self._verified(root, subject, names, log) for names in branches_from(root, segments)
        ]
        for chain in sorted(filter(None, chains), key=lambda chain: chain.pages, reverse=True):
            whole = window is not None and chain.next_cursor is None
            if reason := None if whole else self._unusable(chain.started_at):
                self.abandon(chain, log, reason)
            else:
                yield chain

    def abandon(self, chain: SavedPages, log: Callable[[str], None], reason: str) -> None:
        """Note that a chain is of no use; its files go when a snapshot is published."""
        self._abandoned |= set(chain.segments)
        log(f"{chain.subject}: {reason} They are not used.")

    def _verified(
        self, root: str, subject: str, names: Sequence[str], log: Callable[[str], None]
    ) -> SavedPages | None:
        chain: list[str] = []
        cursors: list[str | None] = []
        counts: list[int] = []
        first: Segment | None = None
        last: Segment | None = None
        for previous, name in zip([root, *map(digest_in, names)], names, strict=False):
            try:
                last = self.read(name, previous)
            except OctogenSnapshotError as error:
                log(f"{subject}: {error} What was saved before it is used.")
                self._abandoned |= set(names[len(chain) :])
                break
            first = first or last
            cursors += [page.next_cursor for page in last.pages]
            counts.append(len(last.pages))
            chain.append(name)
        if first is None or last is None:
            return None
        return SavedPages(
            self,
            root,
            chain,
            subject,
            first.started_at,
            first.generation,
            last.catalogs,
            first.pages[0].read(subject),
            last.pages[-1].read(subject),
            cursors[-2] if len(cursors) > 1 else None,
            counts,
            cursors[-1],
        )

    def _unusable(self, started_at: datetime) -> str | None:
        age = datetime.now(timezone.utc) - started_at
        began = f"{started_at:%Y-%m-%d %H:%M} UTC"
        if age < timedelta(0):
            return f"the saved pages are of a read that begins later, at {began}: a clock jumped."
        if age > self.resume_within:
            return f"the saved pages are of a read that began at {began}, too long ago."
        return None

    def landing(self) -> Landing | None:
        """The landed pages of the last read that was whole.

        Raises:
            OctogenSnapshotError: The manifest cannot be read.
        """
        try:
            content = (self.folder / _MANIFEST).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except Exception as error:  # an object store's errors are of many kinds
            raise OctogenSnapshotError(
                f"The list of landed pages {self.folder / _MANIFEST} cannot be read: {error}."
            ) from error
        try:
            landing = msgspec.json.decode(content, type=Landing)
        except msgspec.MsgspecError as error:
            raise OctogenSnapshotError(
                f"The list of landed pages {self.folder / _MANIFEST} is damaged ({error}): the "
                "snapshot cannot be rebuilt from it. Restore the file, or remove it and "
                "materialize while the service still has the data."
            ) from None
        if landing.version == VERSION and landing.signed() != landing:
            raise OctogenSnapshotError(
                f"The list of landed pages {self.folder / _MANIFEST} is not what was written: the "
                "snapshot cannot be rebuilt from it. Restore the file, or remove it and "
                "materialize while the service still has the data."
            )
        if landing.version != VERSION:
            raise OctogenSnapshotError(
                f"The list of landed pages {self.folder / _MANIFEST} is of version "
                f"{landing.version}, and this one reads {VERSION}: update octogen-dagster."
            )
        return landing

    def pages(self, root: str, segments: Sequence[str], subject: str) -> Iterator[WirePage]:
        """The pages of a chain, checked as if they had just come.

        Args:
            root: What the chain begins with.
            segments: The chain's files, in order.
            subject: What was read, to begin error messages with.

        Raises:
            OctogenSnapshotError: A file is gone or damaged.
        """
        previous = root
        for name in segments:
            for page in self.read(name, previous).pages:
                yield page.read(subject)
            previous = digest_in(name)

    def discard(self, segments: Collection[str]) -> None:
        """Remove segments, and what killed writers left.

        Raises:
            OctogenSnapshotError: Some cannot be removed.
        """
        failures: list[Exception] = []

        def remove(name: str) -> None:
            try:
                (self.folder / name).unlink()
            except FileNotFoundError:
                pass
            except Exception as error:  # an object store's errors are of many kinds
                failures.append(error)

        if self._is_local:
            segments = {*segments, *(path.name for path in self.folder.glob(f".*{_UNFINISHED}"))}
        deque(self._writers.map(remove, segments), maxlen=0)
        if self._is_local:
            with contextlib.suppress(OSError):
                os.rmdir(self.folder.path)
        if failures:
            raise OctogenSnapshotError(
                f"{len(failures)} files of saved pages in {self.folder} cannot be removed: "
                f"{getattr(failures[0], 'strerror', None) or failures[0]}. Let this user remove "
                "them: a later run may take them for those of a read to be continued."
            ) from failures[0]

    def land(self, landing: Landing) -> None:
        """The read is whole: name its pages, if they are kept, so that it can be rebuilt.

        To be called before the snapshot is published: a crash in between then leaves a day that
        can be rebuilt, and never one that was published and cannot be.

        Raises:
            OctogenSnapshotError: The pages cannot be kept.
            OSError: They cannot be made to survive a power failure.
        """
        if not self.keep:
            return
        if missing := landing.segments - self._names():
            raise OctogenSnapshotError(
                f"{len(missing)} files of landed pages in {self.folder} were removed while they "
                "were in use, as by another run of the same partition. The snapshot itself is "
                "whole; its landed pages are not kept."
            )
        replaced = (self._landed_names() or set()) - landing.segments
        named = msgspec.structs.replace(landing, replaced=sorted(replaced)).signed()
        if self._is_local:
            deque(
                self._writers.map(lambda segment: sync(self._local(segment)), landing.segments),
                maxlen=0,
            )
        self._write(
            _MANIFEST, msgspec.json.format(msgspec.json.encode(named), indent=1), durable=True
        )

    def publish(self, landing: Landing) -> None:
        """The snapshot is published: remove the pages that are needed no more.

        What else was saved stays, but for chains that were found to be of no use: a run that is
        under way may need it.
        """
        try:
            landed = self.landing()
        except OctogenSnapshotError:  # its pages cannot be told from others
            self.discard(self._abandoned if self.keep else landing.segments | self._abandoned)
            return
        kept = landed.segments if landed else set()
        replaced = set(landed.replaced) if landed else set()
        others = self._names() - landing.segments - kept - replaced
        useless = self._abandoned | {name for name in others if self._is_left_over(name)}
        self.discard((landing.segments | replaced | useless) - kept)

    def read(self, name: str, previous: str) -> Segment:
        """A segment, verified.

        Raises:
            OctogenSnapshotError: It is not there, or not what was written.
        """
        path = self.folder / name
        try:
            content: bytes = path.read_bytes()
        except FileNotFoundError:
            raise OctogenSnapshotError(
                f"The saved pages {path} are gone: another run of the same partition may have "
                "removed them. Run again; landed pages of a past time must be restored."
            ) from None
        except Exception as error:  # an object store's errors are of many kinds
            raise OctogenSnapshotError(
                f"The saved pages {path} cannot be read: {error}."
            ) from error
        if segment_name(previous, content) != name:
            raise OctogenSnapshotError(
                f"The saved pages {path} are damaged: {len(content):,} bytes that are not what "
                "was written."
            )
        try:
            return read_segment(content)
        except ValueError:
            raise OctogenSnapshotError(
                f"The saved pages {path} are whole, and of a format that this version of "
                "octogen-dagster does not read."
            ) from None

    def begin(self, write: Callable[[], str]) -> Future[str]:
        """Let a segment be written while the caller goes on."""
        return self._writers.submit(write)

    def write(self, content: bytes, previous: str) -> str:
        """Save a segment; its name.

        Raises:
            OctogenSnapshotError: It cannot be written.
        """
        name = segment_name(previous, content)
        self._write(name, content)
        return name

    def _write(self, name: str, content: bytes, *, durable: bool = False) -> None:
        """Put a file in place, whole; durable, so that it survives a power failure."""
        try:
            if not self._is_local:
                (self.folder / name).write_bytes(content)
                return
            try:
                self._put(name, content, durable=durable)
            except FileNotFoundError:  # another run has published, and cleaned up
                self._put(name, content, durable=durable)
        except Exception as error:  # an object store's errors are of many kinds
            raise OctogenSnapshotError(
                f"Pages cannot be saved to {self.folder}: "
                f"{getattr(error, 'strerror', None) or error}. Make it writable, or set base_dir "
                "to another place."
            ) from error

    def _put(self, name: str, content: bytes, *, durable: bool) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        unfinished = self._local(f".{name}.{uuid.uuid4().hex[:12]}{_UNFINISHED}")
        with open(unfinished, "wb") as file:
            file.write(content)
        if durable:
            sync(unfinished)
        os.replace(unfinished, self._local(name))
        if durable:
            sync(self.folder.path)

    def _local(self, name: str) -> str:
        return str((self.folder / name).path)

    def _names(self) -> set[str]:
        try:
            return {path.name for path in self.folder.iterdir() if path.name.endswith(SUFFIX)}
        except (FileNotFoundError, NotADirectoryError):
            return set()

    def _is_left_over(self, name: str) -> bool:
        """Whether a segment is damaged, or of a read that began too long ago to be under way."""
        try:
            segment = self.read(name, name.partition("-")[0])
        except OctogenSnapshotError:
            return True
        return self._unusable(segment.started_at) is not None

    def _landed_names(self) -> set[str] | None:
        try:
            landing = self.landing()
        except OctogenSnapshotError:
            return None
        return landing.segments | set(landing.replaced) if landing else set()
