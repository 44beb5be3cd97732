from __future__ import annotations

import gzip
import zlib

import brotli
import pytest

from octogen_dagster.api.content_encoding import InvalidEncodingError, decompressed

CONTENT = b"a product " * 1000


def test_encodings_are_undone_in_reverse_order() -> None:
    body = brotli.compress(gzip.compress(CONTENT))
    assert decompressed(body, "gzip, BR", 1 << 20) == CONTENT


@pytest.mark.parametrize("encoding", ["identity", "compress", ""])
def test_a_body_of_an_unknown_encoding_stays(encoding: str) -> None:
    assert decompressed(CONTENT, encoding, 10) == CONTENT


def test_deflate_may_lack_its_header() -> None:
    compressor = zlib.compressobj(wbits=-15)
    raw = compressor.compress(CONTENT) + compressor.flush()
    assert decompressed(raw, "deflate", 1 << 20) == CONTENT


def test_a_gzip_body_may_have_several_members() -> None:
    assert decompressed(gzip.compress(CONTENT) * 3, "gzip", 1 << 20) == CONTENT * 3


def test_a_gzip_body_of_very_many_members_is_refused() -> None:
    with pytest.raises(InvalidEncodingError, match="damaged"):
        decompressed(gzip.compress(b"") * 10_000, "gzip", 1 << 20)


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd"])
def test_a_body_of_another_encoding_is_damaged(encoding: str) -> None:
    with pytest.raises(InvalidEncodingError, match=r"the compressed body is (damaged|cut off)"):
        decompressed(b"{}" * 100, encoding, 1 << 20)


def test_no_more_than_the_limit_is_decompressed() -> None:
    assert decompressed(gzip.compress(CONTENT), "gzip", 15) == CONTENT[:15]


@pytest.mark.parametrize("encoding", ["deflate, gzip", "br, gzip", "zstd, gzip"])
def test_an_empty_body_stays_empty(encoding: str) -> None:
    assert decompressed(gzip.compress(b""), encoding, 1 << 20) == b""


def test_a_body_that_is_encoded_many_times_is_refused() -> None:
    body = CONTENT
    for _ in range(4):
        body = gzip.compress(body)
    with pytest.raises(InvalidEncodingError, match="the body is compressed 4 times"):
        decompressed(body, "gzip, gzip, gzip, gzip", 1 << 20)
