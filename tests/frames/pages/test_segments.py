"""The format of a segment, and the names of the files that hold segments."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import msgspec
import pytest

from octogen_dagster.frames.pages.segments import (
    CompressedSegment,
    Segment,
    SegmentName,
    compressed,
    digest,
)
from tests.frames.pages.samples import segment
from tests.frames.products import wire_page

if sys.version_info >= (3, 14):
    pass
else:
    pass

GOLDEN = Path(__file__).parents[2] / "golden" / "segment.pages"
DIGEST = "0123456789abcdef" * 2


def test_a_segment_of_an_earlier_version_is_of_another_format() -> None:
    with pytest.raises(ValueError, match="array"):
        Segment.decoded(GOLDEN.read_bytes())


@pytest.mark.parametrize("count", [0, 1, 12, 15, 16, 300])
def test_pages_that_are_compressed_one_by_one_are_the_same_segment(count: int) -> None:
    pages = [wire_page(f"p{number}") for number in range(count)]
    parts = CompressedSegment("seed", [compressed(each) for each in pages])
    assert Segment.decoded(parts.encoded()) == Segment("seed", pages)


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
