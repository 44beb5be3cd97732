"""Saved pages: what survives a crash of a read, and what a past day can be rebuilt from.

A page is kept as it came. `PAGES_IN_A_SEGMENT` pages make a segment, a small Parquet file whose
name is the hash of its content and of the segment before it, so the segments of one walk form a
chain from the hash of what was asked for. A file that is cut, damaged or of another search is never
taken for part of a chain, and runs that read the same at once grow branches that do not mix:
nothing has to be locked, on a file system or an object store.

When a read was published its segments are removed or, if they are to be kept, named by a
manifest: the landed pages.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import msgspec
import polars as pl

from octogen_dagster.api.errors import OctogenSnapshotError
from octogen_dagster.frames.schema import SCHEMA_VERSION
from octogen_dagster.frames.wire import read_page

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from upath import UPath

    from octogen_dagster.api.models import MerchantCatalogSummary, SearchRequest
    from octogen_dagster.frames.wire import WirePage

PAGES_IN_A_SEGMENT = 25
RESUME_WITHIN = timedelta(hours=6)
_VERSION = 1
_SUFFIX = ".pages"
_MANIFEST = "landed.json"
_METADATA_KEY = "octogen.pages"


Segments = dict[str, list[str]]
"""Names of segments by the hash of what they follow."""


class _SegmentFacts(msgspec.Struct):
    """What a segment says of itself.

    Attributes:
        started_at: When the read began.
        generation: The contract the service answered (`OctogenClient.generation`).
    """

    started_at: datetime
    generation: str


class LandedWalk(msgspec.Struct, forbid_unknown_fields=True):
    """One walk in a manifest: the catalog that was read and its segments, in order."""

    catalog: str | None
    segments: list[str]


class Landing(msgspec.Struct, forbid_unknown_fields=True):
    """A manifest: all the pages of a read that was published.

    Attributes:
        search: The search, as JSON.
        started_at: When the read began.
        walks: What was read, in order.
        version: Of this structure.
    """

    search: dict[str, Any]
    started_at: datetime
    walks: list[LandedWalk]
    version: int = _VERSION


@dataclass(frozen=True)
class SavedPages:
    """Consecutive pages of one walk, from its first, that need not be asked for.

    Attributes:
        segments: The files, in order.
        started_at: When the read that brought them began.
        generation: The contract the service answered.
        first_page: Page 1.
        pages: How many there are.
        next_cursor: What the page after the last one is asked for with; None if there is none.
    """

    store: PageStore
    segments: Sequence[str]
    subject: str
    started_at: datetime
    generation: str
    first_page: WirePage
    pages: int
    next_cursor: str | None

    def __iter__(self) -> Iterator[WirePage]:
        return self.store.pages(self.segments, self.subject)

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

    def segments(self) -> Segments:
        """The files of saved pages that are not landed, by what they follow."""
        landed = {name for walk in self._landed_walks() for name in walk.segments}
        segments: Segments = {}
        for name in sorted(self._names() - landed):
            segments.setdefault(name.partition("-")[0], []).append(name)
        return segments

    def saved(
        self, root: str, subject: str, segments: Segments
    ) -> tuple[SavedPages | None, list[str]]:
        """The longest usable chain, and what there is to say about others.

        Args:
            root: `walk_root` of what is asked for.
            subject: What is read: "Catalog 'acme'".
            segments: `segments()`.
        """
        notes: list[str] = []
        names = _longest_chain(root, segments)
        chain: list[str] = []
        cursors: list[str | None] = []
        facts: _SegmentFacts | None = None
        first_page: WirePage | None = None
        for previous, name in zip([root, *map(_digest_in, names)], names, strict=False):
            try:
                content = self.read(name, previous)
                segment_facts = _facts(content)
            except OctogenSnapshotError as error:
                notes.append(f"{subject}: {error} What was saved before it is used.")
                break
            if facts is None:
                facts = segment_facts
                if reason := self._unusable(facts):
                    return None, [*notes, f"{subject}: {reason} The read starts over."]
                first_page = next(_pages(content, subject))
            cursors.extend(pl.read_parquet(content, columns=["next_cursor"]).to_series())
            chain.append(name)
        if facts is None or first_page is None:
            return None, notes
        saved = SavedPages(
            self,
            chain,
            subject,
            facts.started_at,
            facts.generation,
            first_page,
            len(cursors),
            cursors[-1],
        )
        return saved, notes

    def _unusable(self, facts: _SegmentFacts) -> str | None:
        age = datetime.now(UTC) - facts.started_at
        began = f"{facts.started_at:%Y-%m-%d %H:%M} UTC"
        if age < timedelta(0):
            return f"the saved pages are of a read that begins later, at {began}: a clock jumped."
        if age > self.resume_within:
            return f"the saved pages are of a read that began at {began}, too long ago."
        return None

    def landing(self) -> Landing | None:
        """The landed pages of the read that was published last.

        Raises:
            OctogenSnapshotError: The manifest cannot be read.
        """
        try:
            content = (self.folder / _MANIFEST).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None
        try:
            landing = msgspec.json.decode(content, type=Landing)
        except msgspec.MsgspecError as error:
            raise OctogenSnapshotError(
                f"The list of landed pages {self.folder / _MANIFEST} is damaged ({error}): the "
                "snapshot cannot be rebuilt from it. Restore the file, or remove it and "
                "materialize while the service still has the data."
            ) from None
        if landing.version != _VERSION:
            raise OctogenSnapshotError(
                f"The list of landed pages {self.folder / _MANIFEST} is of version "
                f"{landing.version}, and this one reads {_VERSION}: update octogen-dagster."
            )
        return landing

    def pages(self, segments: Sequence[str], subject: str) -> Iterator[WirePage]:
        """The pages of a chain, checked as if they had just come.

        Args:
            segments: The chain's files, in order.
            subject: What was read, to begin error messages with.

        Raises:
            OctogenSnapshotError: A file is gone or damaged.
        """
        previous = segments[0].partition("-")[0] if segments else ""
        for name in segments:
            yield from _pages(self.read(name, previous), subject)
            previous = _digest_in(name)

    def publish(self, landing: Landing) -> None:
        """The read was published: keep its pages as landed, or forget what was saved of it."""
        present = self._names()
        kept = {name for walk in landing.walks for name in walk.segments}
        if not self.keep:
            kept = {name for walk in self._landed_walks() for name in walk.segments}
        elif missing := kept - present:
            raise OctogenSnapshotError(
                f"{len(missing)} files of landed pages in {self.folder} were removed while they "
                "were in use, as by another run of the same partition. The snapshot is published; "
                "its landed pages are not kept."
            )
        else:
            self._write_manifest(landing)
        for name in present - kept:
            with contextlib.suppress(OSError):
                (self.folder / name).unlink()
        if self._is_local:
            with contextlib.suppress(OSError):
                os.rmdir(str(self.folder))

    def read(self, name: str, previous: str) -> bytes:
        """The content of a segment, verified.

        Raises:
            OctogenSnapshotError: It is not there, or not what was written.
        """
        path = self.folder / name
        try:
            content: bytes = path.read_bytes()
        except FileNotFoundError:
            raise OctogenSnapshotError(
                f"The saved pages {path} are gone: another run of the same partition may have "
                "removed them. Run again."
            ) from None
        if _name(previous, content) != name:
            raise OctogenSnapshotError(
                f"The saved pages {path} are damaged: {len(content):,} bytes that are not what "
                "was written."
            )
        return content

    def write(self, content: bytes, previous: str) -> str:
        """Save a segment; its name.

        Raises:
            OctogenSnapshotError: It cannot be written.
        """
        name = _name(previous, content)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            (self.folder / name).write_bytes(content)
        except OSError as error:
            raise OctogenSnapshotError(
                f"Pages cannot be saved to {self.folder}: {error.strerror or error}. Make it "
                "writable, or set base_dir to another place."
            ) from error
        return name

    def _names(self) -> set[str]:
        try:
            return {path.name for path in self.folder.iterdir() if path.name.endswith(_SUFFIX)}
        except (FileNotFoundError, NotADirectoryError):
            return set()

    def _landed_walks(self) -> list[LandedWalk]:
        with contextlib.suppress(OctogenSnapshotError):
            if landing := self.landing():
                return landing.walks
        return []

    def _write_manifest(self, landing: Landing) -> None:
        content = msgspec.json.format(msgspec.json.encode(landing), indent=1)
        path = self.folder / _MANIFEST
        self.folder.mkdir(parents=True, exist_ok=True)
        if self._is_local:
            unfinished = self.folder / f".{_MANIFEST}.unfinished"
            unfinished.write_bytes(content)
            os.replace(str(unfinished), str(path))
        else:
            path.write_bytes(content)


class PageSaver:
    """Saves the pages of one walk as they come.

    Args:
        store: Where to.
        root: `walk_root` of what is asked for.
        saved: Pages that are there already.
        started_at: When the read began.

    Attributes:
        segments: The files of the walk so far, in order.
        generation: The contract the pages come by (`OctogenClient.generation`).
    """

    def __init__(
        self, store: PageStore, root: str, saved: SavedPages | None, started_at: datetime
    ) -> None:
        self.segments: list[str] = list(saved.segments) if saved else []
        self.generation = saved.generation if saved else ""
        self._store = store
        self._root = root
        self._started_at = started_at
        self._unsaved: list[WirePage] = []

    def add(self, page: WirePage) -> None:
        """Note the next page; a segment is written when it is full.

        Raises:
            OctogenSnapshotError: It cannot be written.
        """
        self._unsaved.append(page)
        if len(self._unsaved) == PAGES_IN_A_SEGMENT:
            self.flush()

    def flush(self) -> None:
        """Write what is not written yet.

        Raises:
            OctogenSnapshotError: It cannot be written.
        """
        if not self._unsaved:
            return
        pages, self._unsaved = self._unsaved, []
        facts = _SegmentFacts(self._started_at, self.generation)
        previous = _digest_in(self.segments[-1]) if self.segments else self._root
        self.segments.append(self._store.write(_segment(pages, facts), previous))


def walk_root(request: SearchRequest, base_url: str, catalog: MerchantCatalogSummary | None) -> str:
    """What chains of saved pages begin with: a hash of all that their pages depend on.

    Args:
        request: The request for page 1.
        base_url: The service.
        catalog: What the service says of the catalog, if it does: one that was indexed again is
            read anew.
    """
    indexed_at = catalog.last_indexed_at if catalog else None
    identity = [_VERSION, SCHEMA_VERSION, base_url, request.body(), indexed_at]
    return _hash(msgspec.json.encode(identity, order="sorted"))


def _longest_chain(root: str, segments: Segments) -> list[str]:
    longest: list[str] = []
    branches = [[name] for name in segments.get(root, [])]
    seen = {root}
    while branches:
        branch = branches.pop()
        longest = max(longest, branch, key=len)
        digest = _digest_in(branch[-1])
        if digest not in seen:
            seen.add(digest)
            branches += [[*branch, name] for name in segments.get(digest, [])]
    return longest


def _hash(*parts: bytes) -> str:
    return hashlib.blake2b(b"".join(parts), digest_size=16).hexdigest()


def _name(previous: str, content: bytes) -> str:
    return f"{previous}-{_hash(previous.encode(), content)}{_SUFFIX}"


def _digest_in(name: str) -> str:
    return name.removesuffix(_SUFFIX).rpartition("-")[2]


def _segment(pages: Sequence[WirePage], facts: _SegmentFacts) -> bytes:
    frame = pl.DataFrame(
        {
            "page": [page.response.content for page in pages],
            "request_id": [page.request_id for page in pages],
            "next_cursor": [page.next_cursor for page in pages],
        },
        schema={"page": pl.Binary, "request_id": pl.String, "next_cursor": pl.String},
    )
    content = io.BytesIO()
    frame.write_parquet(
        content,
        compression="zstd",
        compression_level=1,
        statistics=False,
        metadata={_METADATA_KEY: msgspec.json.encode(facts).decode()},
    )
    return content.getvalue()


def _facts(content: bytes) -> _SegmentFacts:
    return msgspec.json.decode(pl.read_parquet_metadata(content)[_METADATA_KEY], type=_SegmentFacts)


def _pages(content: bytes, subject: str) -> Iterator[WirePage]:
    import httpx

    frame = pl.read_parquet(content, columns=["page", "request_id"])
    for page, request_id in frame.iter_rows():
        headers = {"x-request-id": request_id} if request_id else {}
        yield read_page(httpx.Response(200, content=page, headers=headers), f"{subject}, saved,")
