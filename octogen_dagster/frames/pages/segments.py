"""The format of a segment: a file of consecutive pages of one search, named by its content.

Where segments are kept is in `store`.
"""

from __future__ import annotations

import hashlib
import re
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec
from typing_extensions import Self

from octogen_dagster.frames.wire import read_page

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

if TYPE_CHECKING:
    from octogen_dagster.frames.wire import WirePage

SUFFIX = ".pages"
_ZSTD_LEVEL = 1
_NAME = re.compile(r"(?P<catalog>\d{6})-(?P<number>\d{6})-(?P<digest>[0-9a-f]{32})\.pages")


class SavedPage(msgspec.Struct, array_like=True, gc=False):
    """A page as the service sent it.

    Attributes:
        content: The body of the response.
        request_id: Its `x-request-id`.
        next_cursor: The cursor of the next page; None on the last one.
    """

    content: bytes
    request_id: str | None
    next_cursor: str | None

    @classmethod
    def of(cls, page: WirePage) -> Self:
        """A page that came from the service."""
        return cls(page.response.content, page.request_id, page.next_cursor)

    def parsed(self, subject: str) -> WirePage:
        """The page, checked as if it had just come.

        Args:
            subject: What was read, which error messages begin with.
        """
        import httpx

        headers = {}
        if self.request_id:
            headers = {b"x-request-id": self.request_id.encode(errors="replace")}
        response = httpx.Response(200, content=self.content, headers=headers)
        return read_page(response, f"{subject}, saved,")


class Segment(msgspec.Struct):
    """Consecutive pages of one catalog.

    Attributes:
        generation: The contract that the service answered (`OctogenClient.generation`).
        pages: The pages.
    """

    generation: str
    pages: list[SavedPage]

    def encoded(self) -> bytes:
        """The content of the segment's file: MessagePack, compressed by Zstandard."""
        return zstd.compress(msgspec.msgpack.encode(self), _ZSTD_LEVEL)

    @classmethod
    def decoded(cls, content: bytes) -> Self:
        """The segment in the content of its file.

        Raises:
            ValueError: The content has another format.
        """
        try:
            return msgspec.msgpack.decode(zstd.decompress(content), type=cls)
        except (zstd.ZstdError, msgspec.MsgspecError) as error:
            raise ValueError(str(error)) from error


@dataclass(frozen=True, order=True)
class SegmentName:
    """The name of a segment's file; names sort in the order in which segments were read.

    Attributes:
        catalog: The place of the catalog among those of the read, from 0.
        number: The place of the segment among those of the catalog, from 0.
        digest: `digest` of the content.
    """

    catalog: int
    number: int
    digest: str

    @classmethod
    def parsed(cls, text: str) -> Self | None:
        """The parts of a file's name; None if it is no segment's."""
        match = _NAME.fullmatch(text)
        return match and cls(int(match["catalog"]), int(match["number"]), match["digest"])

    def __str__(self) -> str:
        return f"{self.catalog:06}-{self.number:06}-{self.digest}{SUFFIX}"


def digest(content: bytes) -> str:
    """A hash that tells damaged content from what was written: 32 hexadecimal digits."""
    return hashlib.blake2b(content, digest_size=16).hexdigest()
