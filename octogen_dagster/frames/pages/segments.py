"""Segments: files of consecutive pages, named by what they hold and what they follow.

Their format and their names; where they are kept is not here.
"""

from __future__ import annotations

import hashlib
import sys
from datetime import datetime
from typing import TYPE_CHECKING, Any

import msgspec
from typing_extensions import Self

from octogen_dagster.frames.schema import SCHEMA_VERSION
from octogen_dagster.frames.wire import read_page

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

if TYPE_CHECKING:
    from collections.abc import Iterable

    from octogen_dagster.api.models import MerchantCatalogSummary, SearchRequest
    from octogen_dagster.frames.wire import WirePage

VERSION = 1
SUFFIX = ".pages"
_ZSTD_LEVEL = 1

Segments = dict[str, list[str]]
"""Names of segments by the hash of what they follow."""


class SavedPage(msgspec.Struct, array_like=True, gc=False):
    """A page as it came.

    Attributes:
        content: The body of the answer.
        request_id: Its `x-request-id`.
        next_cursor: What the next page is asked for with; None on the last one.
    """

    content: bytes
    request_id: str | None
    next_cursor: str | None

    @classmethod
    def of(cls, page: WirePage) -> Self:
        """A page that was read."""
        return cls(page.response.content, page.request_id, page.next_cursor)

    def read(self, subject: str) -> WirePage:
        """The page, checked as if it had just come.

        Args:
            subject: What was read, to begin an error message with.
        """
        import httpx

        headers = {"x-request-id": self.request_id} if self.request_id else {}
        response = httpx.Response(200, content=self.content, headers=headers)
        return read_page(response, f"{subject}, saved,")


class Segment(msgspec.Struct):
    """Consecutive pages of a walk.

    Attributes:
        started_at: When the read began.
        generation: The contract the service answered (`OctogenClient.generation`).
        pages: The pages.
        catalogs: `digest_of` the catalogs that the whole read is of.
    """

    started_at: datetime
    generation: str
    pages: list[SavedPage]
    catalogs: str = ""


class LandedWalk(msgspec.Struct, forbid_unknown_fields=True):
    """One walk in a manifest: the catalog that was read, and its chain from a root."""

    catalog: str | None
    root: str
    segments: list[str]


class Landing(msgspec.Struct, forbid_unknown_fields=True):
    """A manifest: all the pages of a read that was whole.

    Attributes:
        search: The search, as JSON.
        started_at: When the read began.
        walks: What was read, in order.
        replaced: Files of the read that was landed before, which are to be removed.
        digest: Of all the rest.
        version: Of this structure.
    """

    search: dict[str, Any]
    started_at: datetime
    walks: list[LandedWalk]
    replaced: list[str] = msgspec.field(default_factory=list)
    digest: str = ""
    version: int = VERSION

    @property
    def segments(self) -> set[str]:
        """The files of its pages."""
        return {name for walk in self.walks for name in walk.segments}

    def signed(self) -> Landing:
        """The same with its digest."""
        parts = [self.search, self.started_at, self.walks, *self.replaced]
        content = msgspec.json.encode(parts, order="sorted")
        return msgspec.structs.replace(self, digest=_hash(content))


def walk_root(request: SearchRequest, base_url: str, catalog: MerchantCatalogSummary | None) -> str:
    """What chains of saved pages begin with: a hash of all that their pages depend on.

    Args:
        request: The request for page 1.
        base_url: The service.
        catalog: What the service says of the catalog, if it does: one that was indexed again is
            read anew.
    """
    indexed_at = catalog.last_indexed_at if catalog else None
    identity = [VERSION, SCHEMA_VERSION, base_url, request.body(), indexed_at]
    return _hash(msgspec.json.encode(identity, order="sorted"))


def digest_of(catalogs: Iterable[str | None]) -> str:
    """A hash of the catalogs that a read is of, in any order."""
    return _hash(msgspec.json.encode(sorted(catalog or "" for catalog in catalogs)))


def branches_from(root: str, segments: Segments) -> list[list[str]]:
    """Every branch from the root to its end."""
    ends: list[list[str]] = []
    branches = [[name] for name in segments.get(root, [])]
    seen = {root}
    while branches:
        branch = branches.pop()
        digest = digest_in(branch[-1])
        following = segments.get(digest, []) if digest not in seen else []
        seen.add(digest)
        branches += [[*branch, name] for name in following]
        if not following:
            ends.append(branch)
    return ends


def _hash(*parts: bytes) -> str:
    return hashlib.blake2b(b"".join(parts), digest_size=16).hexdigest()


def segment_name(previous: str, content: bytes) -> str:
    """The name of a segment: the hash of what it follows, and its own."""
    return f"{previous}-{_hash(previous.encode(), content)}{SUFFIX}"


def digest_in(name: str) -> str:
    """A segment's own hash, in its name."""
    return name.removesuffix(SUFFIX).rpartition("-")[2]


def write_segment(segment: Segment) -> bytes:
    """The content of a segment's file: MessagePack, compressed by Zstandard."""
    return zstd.compress(msgspec.msgpack.encode(segment), _ZSTD_LEVEL)


def read_segment(content: bytes) -> Segment:
    """The segment in the content of its file.

    Raises:
        ValueError: It is of another format.
    """
    try:
        return msgspec.msgpack.decode(zstd.decompress(content), type=Segment)
    except (zstd.ZstdError, msgspec.MsgspecError) as error:
        raise ValueError(str(error)) from error
