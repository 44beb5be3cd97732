from __future__ import annotations

import json
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from octogen_dagster.frames import page_parser
from octogen_dagster.frames.page_parser import MAX_LEARNED, PageParser
from octogen_dagster.frames.unknown_fields import count_unknown_fields
from tests.frames.products import PRODUCT


@pytest.fixture
def searches(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The pages that were searched for unknown fields."""
    searched: list[bytes] = []

    def count(content: bytes) -> Any:
        searched.append(content)
        return count_unknown_fields(content)

    monkeypatch.setattr(page_parser, "count_unknown_fields", count)
    return searched
    return searched


def page(*items: dict[str, Any], **fields: Any) -> bytes:
    return json.dumps({"items": [PRODUCT | item for item in items], **fields}).encode()


def test_a_field_is_learned_once_and_counted_on_every_page(searches: list[bytes]) -> None:
    parser = PageParser(strict=True)
    content = page({"mood": "calm"}, {}, {"mood": None, "brand": {"founder": {"name": 1}}}, debug=1)
    for _ in range(3):
        parsed, unknown = parser.parse(content)
        assert unknown == {"items.mood": 2, "items.brand.founder": 1, "debug": 1}
        assert len(parsed.items) == 3
    assert parser.parse(page({}))[1] == {}
    assert len(searches) == 1


def test_a_learned_field_is_no_part_of_the_page() -> None:
    parser = PageParser(strict=True)
    content = page({"mood": "calm", "images": [{"url": "x", "hash": 1}, "y"]}, debug=1)
    known = msgspec.json.encode(parser.parse(page({"images": [{"url": "x"}, "y"]}))[0])
    for _ in range(2):
        assert msgspec.json.encode(parser.parse(content)[0]) == known


def test_no_more_fields_are_learned_than_a_page_can_be_decoded_with(searches: list[bytes]) -> None:
    parser = PageParser(strict=True)
    names = [f"field{number}" for number in range(MAX_LEARNED + 44)]
    expected = {f"items.{name}": 2 for name in names}
    content = page(dict.fromkeys(names, 1), dict.fromkeys(names))
    for _ in range(2):
        assert parser.parse(content)[1] == expected
    assert len(searches) == 2  # the fields above the limit are searched for on every page
    assert parser.parse(page(dict.fromkeys(sorted(names)[:10])))[1].total() == 10
    assert len(searches) == 2


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.dictionaries(
            st.text(max_size=5).filter(lambda name: name not in PRODUCT)
            | st.sampled_from(["learned_0", "a`b - at `$.c`", 'a"b', "a\\b", "a\nb", "", "É"]),
            st.none() | st.integers() | st.text(max_size=3) | st.lists(st.floats(0, 1)),
            max_size=3,
        ),
        max_size=3,
    )
)
def test_a_field_may_have_any_name(items: list[dict[str, Any]]) -> None:
    parser = PageParser(strict=True)
    expected = Counter(f"items.{name}" for item in items for name in item)
    for _ in range(2):
        assert parser.parse(page(*items))[1] == expected


def test_threads_learn_together() -> None:
    parser = PageParser(strict=True)
    contents = [page({f"field{number}": 1}) for number in range(8)] * 8
    with ThreadPoolExecutor(4) as threads:
        for number, (_, unknown) in enumerate(threads.map(parser.parse, contents)):
            assert unknown == {f"items.field{number % 8}": 1}


@pytest.mark.parametrize("names", [["mood"], [f"f{number}" for number in range(MAX_LEARNED + 1)]])
def test_an_unknown_field_is_utf_8_as_well(names: list[str]) -> None:
    parser = PageParser(strict=True)
    parser.parse(page(dict.fromkeys(names, "@")))
    for _ in range(2):
        with pytest.raises(UnicodeDecodeError):
            parser.parse(page(dict.fromkeys(names, "@")).replace(b"@", b"\xff"))
