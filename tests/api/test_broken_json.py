from __future__ import annotations

import pytest
from pydantic_core import from_json

from octogen_dagster.api.broken_json import BrokenProduct, find_broken_product


@pytest.mark.parametrize(
    ("content", "broken"),
    [
        (b'{"items": [{"uuid": "a", "title": "\xff"}]}', BrokenProduct("a", 0, "title")),
        (b'{"items": [{"uuid": "a"},\n {"title": tru}]}', BrokenProduct(None, 1, "title")),
        (b'{"items": [{"uuid": "a", "brand": {"x": "\\ud800"}}]}', BrokenProduct("a", 0, "brand")),
        (b'{"items": [{"uuid": "a", "title":tru}]}', BrokenProduct("a", 0, "title")),
        (b'{"items": [{"uuid": "a", "title": "b: c \xff"}]}', BrokenProduct("a", 0, "title")),
        (b'{"items": [{"uuid": "\xc3\xa9", "n": 01}]}', BrokenProduct("é", 0, "n")),
        (b'{"items": [{"uuid": "a\xff"}]}', BrokenProduct(None, 0, "uuid")),
        (b'{"items": [{"uuid": "a"}], "nextCursor": "\xff"}', None),
        (b'{"items": ["\xff"]}', None),
        (b'{"items": [{"uuid": "a", "title": "b', None),
        (b"<html>", None),
        (b"", None),
    ],
)
def test_the_product_at_which_json_is_broken_is_found(
    content: bytes, broken: BrokenProduct | None
) -> None:
    with pytest.raises(ValueError, match="at line") as raised:
        from_json(content)
    assert find_broken_product(content, str(raised.value)) == broken


def test_without_a_place_there_is_no_product() -> None:
    assert find_broken_product(b"{}", "recursion limit exceeded") is None
