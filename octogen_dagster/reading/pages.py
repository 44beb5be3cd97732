"""PageStore: saves the pages of a read, so that the next run can resume after a crash.

The pages of each search, or of each part of a split catalog, are saved in a folder with the name
`{search}{part}/{indexed_at}`. A read therefore never finds pages from another search, service or
catalog state. Consecutive pages are stored in one file, called a segment.

The file name of a segment is `{page}-{before}-{own}`. It consists of the number of pages before the
segment, the previous segment's digest, and a digest of the name's first two fields and the content.
The names are sufficient to put segments in order, and segments from concurrent runs cannot be
mixed. If a segment is damaged, only the segments before it are used. No locks or other records are
needed.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import re
import sys
import threading
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple, Self

import msgspec

from octogen_dagster.background import Worker, wait_interruptibly
from octogen_dagster.errors import OctogenSnapshotError
from octogen_dagster.reading.decode import ProductPage
from octogen_dagster.storage.files import ListedFile
from octogen_dagster.storage.store import Store

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

PAGES_PER_SEGMENT = 12
_FORMAT = f"2 {ProductPage.__struct_config__.tag}"
_MAX_SEGMENT_BYTES = 4 << 20
_MAX_SHARE_LOST = 0.05
"""A segment that is not full is written early if it has this share of the pages read so far."""
_MAX_AGE = timedelta(days=1)
"""The minimum age for removing saved pages. No running read has saved pages of this age."""
_ZSTD_LEVEL = 1
_HALF = 16
_ROOT = "0" * 32
"""Replaces the previous segment's digest in the file name of the first segment."""
_FOLDER = re.compile(
    rf"(?P<search>[0-9a-f]{{{_HALF}}})(?P<part>[0-9a-f]{{{_HALF}}})/(?P<indexed_at>[^/]+)/[^/]+"
)
_NAME = re.compile(r"(?P<page>\d{6,})-(?P<before>[0-9a-f]{32})-(?P<own>[0-9a-f]{32})\.pages")


class WalkKey(NamedTuple):
    """Identifies the saved pages of a search, or of one part of a split catalog."""

    search: str  # a digest of the service and the search
    part: str  # a digest of the part; parts can differ between runs
    indexed_at: str  # the index time, or a digest of several index times


def walk_key(
    base_url: str,
    body: Mapping[str, Any],
    indexed_times: Sequence[datetime | None],
    part: object = None,
    scope: str = "",
) -> WalkKey:
    """Return the key for the saved pages of a search.

    `body` is the request for page 1 of the whole catalogs, `indexed_times` are their index times,
    and `part` identifies a part of a split catalog. `scope` distinguishes an asset's snapshots, so
    that a daily partition never resumes from the previous day's pages.
    """
    of_body, of_part = (_digest(msgspec.json.encode(each, order="sorted")) for each in (body, part))
    search = _digest(f"{_FORMAT} {scope} {base_url} {of_body}".encode())
    indexed_at = "none"
    if indexed_times and all(indexed_times):
        texts = [f"{each:%Y%m%dT%H%M%S.%f%z}" for each in indexed_times if each]
        indexed_at = texts[0] if len(texts) == 1 else _digest(" ".join(texts).encode())
    return WalkKey(search[:_HALF], of_part[:_HALF], indexed_at)


class _Segment(msgspec.Struct, array_like=True):
    """A file with consecutive pages. Each page is compressed separately, to save memory.

    `started_at` is the start time of the read that saved the segment. `after` is the cursor with
    which the first page was requested.
    """

    generation: str
    started_at: datetime
    after: str | None
    pages: list[bytes]

    def page(self, number: int) -> ProductPage:
        return msgspec.msgpack.decode(zstd.decompress(self.pages[number]), type=ProductPage)


class _Name(NamedTuple):
    """A segment's file name, split into its fields."""

    page: int  # the number of pages before the segment
    before: str  # the previous segment's digest
    own: str  # the segment's digest

    def __str__(self) -> str:
        return f"{self.page:06}-{self.before}-{self.own}.pages"

    @classmethod
    def of(cls, page: int, before: str, content: bytes) -> _Name:
        return cls(page, before, _digest(f"{page}-{before}".encode() + content))


class PageStore:
    """Loads the pages that earlier reads of an asset saved, and saves the pages of this read.

    `scope` identifies the snapshot, such as its partition. Pages older than `resume_within` are
    ignored. If `resume_within` is 0, no pages are saved. If pages cannot be saved, `warn` is called
    once.
    """

    def __init__(
        self,
        store: Store,
        folder: str,
        log: Callable[[str], None],
        warn: Callable[[str], None],
        *,
        scope: str = "",
        resume_within: timedelta,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.now = clock
        self.scope = scope
        self._store = store
        self._folder = folder
        self._resume_within = resume_within
        self._lock = threading.Lock()
        self._walks: dict[WalkKey, SavedWalk] = {}
        self._log = log
        self._warn = warn
        self._listed: dict[WalkKey, list[ListedFile]] = {}
        self._written: list[str] = []
        self._has_saved, self.is_ended = False, not resume_within
        self.failure: OctogenSnapshotError | None = None

    def begin(self) -> None:
        """List the saved pages, and remove pages that are too old for any read."""
        found: defaultdict[WalkKey, list[ListedFile]] = defaultdict(list)
        try:
            for file in self._store.files(self._folder):
                if match := _FOLDER.fullmatch(file.key.removeprefix(f"{self._folder}/")):
                    found[WalkKey(match["search"], match["part"], match["indexed_at"])].append(file)
        except OctogenSnapshotError as error:
            self.give_up(error)
        self._listed = dict(found)
        stale = [key for key, files in self._listed.items() if self._is_stale(files)]
        if old := [file.key for key in stale for file in self._listed.pop(key)]:
            with contextlib.suppress(OctogenSnapshotError):  # the next read tries again
                self._store.delete(old, folder=self._folder)

    def walk(self, key: WalkKey) -> SavedWalk:
        """Return the saved pages for a key, except pages that are too old to resume from."""
        if key not in self._walks:
            files = self._listed.get(key, [])
            young = [file for file in files if self._is_young(file)]
            if len(young) < len(files):
                self._log(f"Ignoring saved pages in {self._path(key)} because they are too old.")
            found = (_NAME.fullmatch(file.key.rpartition("/")[2]) for file in young)
            names = [
                _Name(int(each["page"]), each["before"], each["own"]) for each in found if each
            ]
            self._walks[key] = SavedWalk(self, key, names, self.now())
        return self._walks[key]

    def has_other_times(self, key: WalkKey) -> bool:
        """True if the search has saved pages with a different index time."""
        return any(
            each.search == key.search and each.indexed_at != key.indexed_at for each in self._listed
        )

    def discard(self, keys: Collection[WalkKey]) -> None:
        """Remove the saved pages for the given keys, so that the next read starts from page 1."""
        for key in keys:
            self.walk(key).close()
            self._walks[key] = SavedWalk(self, key, [], self.now())
        with contextlib.suppress(OctogenSnapshotError):
            files = [file.key for key in keys for file in self._store.files(self._path(key))]
            self._store.delete(files, folder=self._folder)

    def clear(self) -> None:
        """Stop saving, and remove the saved pages for all searches in this read.

        Pages that a concurrent run has saved in the meantime are kept. That run removes them.
        """
        if not self._walks:
            return
        self.is_ended = True
        for walk in self._walks.values():
            walk.close()
        read = {key.search for key in self._walks}
        found = [
            file.key for key, files in self._listed.items() if key.search in read for file in files
        ]
        self._store.delete([*found, *self._written], folder=self._folder)

    def _is_stale(self, files: Collection[ListedFile]) -> bool:
        age = self.now() - max(file.modified for file in files)
        return age > max(_MAX_AGE, self._resume_within)

    def _is_young(self, file: ListedFile) -> bool:
        """True if a segment is recent enough to resume from."""
        return abs(self.now() - file.modified) <= self._resume_within

    def _path(self, key: WalkKey, name: _Name | str = "") -> str:
        return f"{self._folder}/{key.search}{key.part}/{key.indexed_at}/{name}".rstrip("/")

    def read(self, key: WalkKey, name: _Name) -> _Segment | None:
        """Read a segment. Return None if the segment is missing or damaged."""
        path = self._path(key, name)
        try:
            content = self._store.get(path)
        except (FileNotFoundError, OctogenSnapshotError):
            content = b""
        if _Name.of(name.page, name.before, content) == name:
            with contextlib.suppress(msgspec.MsgspecError):
                return msgspec.msgpack.decode(content, type=_Segment)
        self._log(f"The saved pages in {path} are missing or damaged. Only earlier pages are used.")
        return None

    def write(self, key: WalkKey, page: int, before: str, segment: _Segment) -> _Name:
        """Write a segment and return its name."""
        content = msgspec.msgpack.encode(segment)
        name = _Name.of(page, before, content)
        # Recorded before the write, since a failed request might have written the file.
        self._written.append(path := self._path(key, name))
        try:
            self._store.put(path, content)
        except OctogenSnapshotError as error:
            if not (self._has_saved or self._store.is_local):
                self.failure = error
            raise
        self._has_saved = True
        return name

    def give_up(self, error: OctogenSnapshotError) -> None:
        """Stop saving and warn once. The read continues, because saving pages is optional."""
        with self._lock:
            is_first, self.is_ended = not self.is_ended, True
        if is_first:
            self._warn(
                f"{error} The read continues without saving more pages. If it fails, the unsaved "
                "pages are requested and charged again."
            )


class SavedWalk:
    """The saved pages of one search: pages from earlier runs, then pages that this read appends.

    As a context manager, it saves the remaining pages when the block ends or fails. `pages` is the
    number of pages from earlier runs, and `resumed` is the number of these pages that have been
    yielded. `started_at` is the start time of the read that saved the first page or, if no page was
    saved, of this read.
    """

    first: ProductPage | None = None  # from earlier runs
    last: ProductPage | None = None
    last_cursor: str | None = None  # the cursor that requested the last page

    def __init__(
        self, store: PageStore, key: WalkKey, names: list[_Name], started_at: datetime
    ) -> None:
        self.key = key
        self.pages = self.resumed = self._saved = 0
        self.generation, self.started_at = "", started_at
        self._store = store
        self._began = started_at
        self._lock = threading.Lock()
        self._saver = Worker("octogen-save")
        self._writing: Future[None] | None = None
        self._unsaved: list[ProductPage] = []
        self._closed = False
        self._tail, self._after = _ROOT, self.last_cursor
        self._chain: list[_Name] = []
        while chain := _longest_chain(names):
            head, tail = store.read(key, chain[0]), store.read(key, chain[-1])
            if head and tail:
                self._continue(chain, head, tail)
                return
            # Without the damaged segment, another chain might be the longest.
            names.remove(chain[-1] if head else chain[0])

    def _continue(self, chain: list[_Name], head: _Segment, tail: _Segment) -> None:
        self._chain = chain
        self.pages = chain[-1].page + len(tail.pages)
        self.first, self.last = head.page(0), tail.page(-1)
        self.last_cursor = tail.page(-2).next_cursor if len(tail.pages) > 1 else tail.after
        self.generation, self.started_at = tail.generation, head.started_at

    def close(self) -> None:
        """Stop saving, and wait for pending writes."""
        with self._lock:
            self._closed = True
            self._unsaved.clear()
            self._saver.end()
            self._wait()

    def __iter__(self) -> Iterator[ProductPage]:
        """Yield the pages from earlier runs, up to the first damaged segment."""
        for name in self._chain:
            segment = self._store.read(self.key, name)
            if segment is None:
                return
            for number in range(len(segment.pages)):
                page = segment.page(number)
                self.resumed += 1
                yield page
            self._tail, self._after, self._saved = name.own, page.next_cursor, self.resumed

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: object) -> None:
        with self._lock:
            self._begin_segment()
            self._saver.end()
            # The pages of a failed read were paid for. A successful read removes its pages anyway.
            if error is not None:
                self._wait()

    def append(self, page: ProductPage, generation: str) -> None:
        """Save the next page in the background. Block only while two segments are pending."""
        if self._store.failure:  # the store is not writable, so the snapshot would fail too
            raise self._store.failure
        if self._closed or self._store.is_ended:
            return
        with self._lock:
            self.generation = generation or self.generation
            self._unsaved.append(page)
            count = len(self._unsaved)
            is_full = (
                count == PAGES_PER_SEGMENT
                or sum(len(each.items) for each in self._unsaved) >= _MAX_SEGMENT_BYTES
            )
            is_idle = self._writing is None or self._writing.done()
            if is_full or (is_idle and count >= _MAX_SHARE_LOST * (self._saved + count)):
                self._begin_segment()

    def _begin_segment(self) -> None:
        self._wait()
        if self._unsaved and not (self._closed or self._store.is_ended):
            pages, self._unsaved = self._unsaved, []
            write = functools.partial(self._write, pages, self.generation)
            self._writing = self._saver.submit(write)

    def _write(self, pages: list[ProductPage], generation: str) -> None:
        compressor = zstd.ZstdCompressor(_ZSTD_LEVEL)
        compressed = [
            compressor.compress(msgspec.msgpack.encode(each), compressor.FLUSH_FRAME)
            for each in pages
        ]
        segment = _Segment(generation, self._began, self._after, compressed)
        try:
            self._tail = self._store.write(self.key, self._saved, self._tail, segment).own
        except OctogenSnapshotError as error:
            if not self._store.failure:
                self._store.give_up(error)  # pages after a gap could not be resumed
            return
        self._saved += len(pages)
        self._after = pages[-1].next_cursor

    def _wait(self) -> None:
        if self._writing is not None:
            writing, self._writing = self._writing, None
            wait_interruptibly(writing)
            writing.result()


def _longest_chain(names: Collection[_Name]) -> list[_Name]:
    """Return the longest unbroken chain of segments from page 1; empty if page 1 is missing."""
    by_digest = {name.own: name for name in names}
    for last in sorted(names, reverse=True):
        chain = [last]
        while (each := by_digest.get(chain[-1].before)) and each.page < chain[-1].page:
            chain.append(each)
        if chain[-1].before == _ROOT and chain[-1].page == 0:
            return chain[::-1]
    return []


def _digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=16).hexdigest()
