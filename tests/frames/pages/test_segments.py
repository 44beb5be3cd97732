"""The format of a segment, and the names of the files that hold segments."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import msgspec
import pytest

from octogen_dagster.api.http import Response
from octogen_dagster.errors import OctogenResponseError
from octogen_dagster.frames.pages.segments import (
    CompressedSegment,
    SavedPage,
    Segment,
    SegmentName,
    digest,
)
from octogen_dagster.frames.wire import read_page
from tests.frames.pages.samples import segment
from tests.frames.scripted import page

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

GOLDEN = Path(__file__).parents[2] / "golden" / "segment.pages"
DIGEST = "0123456789abcdef" * 2


def test_a_segment_of_an_earlier_version_is_read() -> None:
    assert Segment.decoded(GOLDEN.read_bytes()) == Segment(
        generation="seed",
        pages=[
            SavedPage(
                content=b'{"items": [{"uuid": "p0", "productUrl": "https://shop.example/p0"}], '
                b'"nextCursor": "c1"}',
                request_id="r-1",
                next_cursor="c1",
            ),
            SavedPage(
                content=b'{"items": [{"uuid": "p1", "productUrl": "https://shop.example/p1"}], '
                b'"nextCursor": null}',
                request_id="r-2",
                next_cursor=None,
            ),
        ],
    )


def test_the_digest_of_an_earlier_version_is_the_same() -> None:
    assert digest(GOLDEN.read_bytes()) == "8e52b67b90cdd754f7ac36cd44006404"


def test_a_segment_is_decoded_to_what_was_encoded() -> None:
    written = Segment(
        "current", [SavedPage(b'{"items": []}', None, "c1"), SavedPage(b"\xff", "r-2", None)]
    )
    assert Segment.decoded(written.encoded()) == written


@pytest.mark.parametrize("count", [0, 1, 12, 15, 16, 300])
def test_pages_that_are_compressed_one_by_one_are_the_same_segment(count: int) -> None:
    pages = [SavedPage(page(f"p{number}"), f"r-{number}", None) for number in range(count)]
    compressed = CompressedSegment("seed", [each.compressed() for each in pages])
    assert Segment.decoded(compressed.encoded()) == Segment("seed", pages)


def test_an_earlier_version_reads_the_segments_of_this_one() -> None:
    written = segment("p0", "p1")
    assert zstd.decompress(written.encoded()).startswith(b"\x82\xaageneration\xa4seed\xa5pages")
    assert msgspec.msgpack.decode(zstd.decompress(written.encoded()), type=Segment) == written


@pytest.mark.parametrize(
    "damaged",
    [
        b"",
        b"PAR1",
        segment("p0").encoded()[:-1],
        segment("p0").encoded()[:20],
        msgspec.msgpack.encode(segment("p0")),  # not compressed
    ],
    ids=["empty", "parquet", "one byte short", "cut", "not compressed"],
)
def test_content_in_another_format_is_a_value_error(damaged: bytes) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        Segment.decoded(damaged)


def test_a_saved_page_is_the_page_of_the_service() -> None:
    content = page("p0", "p1", next_cursor="c1")
    response = Response(200, {"x-request-id": "r-1"}, content)
    saved = SavedPage.of(read_page(response, "It"))
    assert saved == SavedPage(response.content, "r-1", "c1")

    parsed = saved.parsed("It")
    assert (parsed.uuids, parsed.next_cursor, parsed.request_id) == (["p0", "p1"], "c1", "r-1")


def test_a_saved_page_without_a_request_id_has_none_later() -> None:
    assert SavedPage(page("p0"), None, None).parsed("It").request_id is None


def test_a_saved_page_that_is_no_page_is_named_as_saved() -> None:
    with pytest.raises(OctogenResponseError, match=r"^Catalog 'acme', saved, was answered"):
        SavedPage(b"[]", "r-1", None).parsed("Catalog 'acme'")


def test_a_segments_name_is_parsed_to_its_parts() -> None:
    name = SegmentName(catalog=3, number=12, digest=DIGEST)
    assert str(name) == f"000003-000012-{DIGEST}.pages"
    assert SegmentName.parsed(str(name)) == name


@pytest.mark.parametrize(
    "text",
    [
        "read.json",
        f"000003-000012-{DIGEST}",
        f"000003-000012-{DIGEST}.pages.1",
        f"x000003-000012-{DIGEST}.pages",
        f"000003-000012-{DIGEST.upper()}.pages",
        f"3-12-{DIGEST}.pages",
        "000003-000012-0123.pages",
    ],
)
def test_another_name_is_no_segments(text: str) -> None:
    assert SegmentName.parsed(text) is None


def test_names_sort_by_catalog_and_then_by_number() -> None:
    ordered = [
        SegmentName(catalog, number, f"{99 - catalog - number:032x}")
        for catalog in (0, 2, 10)
        for number in (0, 2, 10)
    ]
    shuffled = random.Random(1).sample(ordered, len(ordered))
    assert sorted(shuffled) == sorted(shuffled, key=str) == ordered


def test_another_content_has_another_digest() -> None:
    digests = {digest(b""), digest(b"\0"), digest(b"\0\0")}
    assert len(digests) == 3
    assert {len(text) for text in digests} == {32}
