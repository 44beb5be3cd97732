"""Decompression of HTTP bodies, up to a largest size. No I/O."""

from __future__ import annotations

import sys
import zlib
from typing import TYPE_CHECKING, Protocol

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

ACCEPTED_ENCODINGS = "zstd, gzip, deflate, br"
"""The value of the header `Accept-Encoding`; the one that is decoded fastest comes first."""

_MAX_ENCODINGS = 3  # each one may take as long as decompressing a body of the largest size
_MAX_MEMBERS = 100  # each one copies what is left of the body
_GZIP_BITS, _ZLIB_BITS, _RAW_BITS = 31, 15, -15


class InvalidEncodingError(Exception):
    """A body is cut off, or is not what its `Content-Encoding` says."""


def decompressed(body: bytes, encoding: str, limit: int) -> bytes:
    """Decompress a body.

    Args:
        body: The whole body, as it was sent.
        encoding: The value of the header `Content-Encoding`. Encodings that are not known stay.
        limit: The largest number of bytes to decompress to; the rest is left out.

    Raises:
        InvalidEncodingError: The body is cut off or damaged, or encoded too many times.
    """
    names = encoding.lower().split(",")
    if len(names) > _MAX_ENCODINGS:
        raise InvalidEncodingError(f"the body is compressed {len(names)} times")
    for name in reversed(names):
        decode = _DECODERS.get(name.strip())
        if decode is not None and body:
            body = decode(body, limit)
    return body


class _Decoder(Protocol):
    """The part of the decompressors of zlib and zstd that is used here."""

    @property
    def eof(self) -> bool:
        """True if the end of the compressed data was reached."""

    @property
    def unused_data(self) -> bytes:
        """The data after the end."""

    def decompress(self, data: bytes, max_length: int, /) -> bytes:
        """Decompress data to at most `max_length` bytes."""


def _decoded(body: bytes, limit: int, make_decoder: Callable[[], _Decoder]) -> bytes:
    """Decompress the members or frames of a body one after another."""
    parts: list[bytes] = []
    left = limit
    for _ in range(_MAX_MEMBERS):
        decoder = make_decoder()
        try:
            parts.append(decoder.decompress(body, left))
        except (zlib.error, zstd.ZstdError):
            raise _damaged() from None
        left -= len(parts[-1])
        if left and not decoder.eof:
            raise _cut_off()
        body = decoder.unused_data
        if not (left and body):
            return b"".join(parts)
    raise _damaged()


def _gunzipped(body: bytes, limit: int) -> bytes:
    return _decoded(body, limit, lambda: zlib.decompressobj(_GZIP_BITS))


def _inflated(body: bytes, limit: int) -> bytes:
    """Decompress zlib's format, or the raw one that some servers send instead."""
    has_zlib_header = body[0] & 0x0F == 8 and int.from_bytes(body[:2], "big") % 31 == 0
    bits = _ZLIB_BITS if has_zlib_header else _RAW_BITS
    return _decoded(body, limit, lambda: zlib.decompressobj(bits))


def _unzstd(body: bytes, limit: int) -> bytes:
    return _decoded(body, limit, zstd.ZstdDecompressor)


def _unbrotli(body: bytes, limit: int) -> bytes:
    import brotli

    decoder = brotli.Decompressor()
    parts: list[bytes] = []
    size = 0
    try:
        while size < limit and not decoder.is_finished():
            part = decoder.process(body, output_buffer_limit=limit - size)
            if not part and not body:
                raise _cut_off()
            parts.append(part)
            size += len(part)
            body = b""
    except brotli.error:
        raise _damaged() from None
    return b"".join(parts)[:limit]


def _cut_off() -> InvalidEncodingError:
    return InvalidEncodingError("the compressed body is cut off")


def _damaged() -> InvalidEncodingError:
    return InvalidEncodingError("the compressed body is damaged")


_DECODERS: Mapping[str, Callable[[bytes, int], bytes]] = {
    "gzip": _gunzipped,
    "x-gzip": _gunzipped,
    "deflate": _inflated,
    "br": _unbrotli,
    "zstd": _unzstd,
}
