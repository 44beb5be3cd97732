from __future__ import annotations

from typing import Any

import pytest

from octogen_dagster.api.printable import printable, shortened


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("", ""),
        ("plain, été, 不", "plain, été, 不"),
        (" two\r\n lines\u2028 ", "two lines"),
        ("\x1b[31mred\x9b0m\x00", "\\x1b[31mred\\x9b0m\\x00"),
        ("a\u202eb\u200b\ud800", "a\\u202eb\\u200b\\ud800"),
        ("x" * 50, "x" * 20),
    ],
)
def test_a_text_is_one_short_line_without_control_characters(text: str, shown: str) -> None:
    assert printable(text, 20) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("text\n", "text\n"),
        ("x" * 50, "x" * 20),
        (None, "None"),
        (1.5, "1.5"),
        ({"a": [1, True]}, "{'a': [1, True]}"),
        ([[[[[[[[]]]]]]]], "[[[[[[[...]]]]]]]"),
    ],
)
def test_a_value_is_described_shortly(value: Any, shown: str) -> None:
    assert shortened(value, 20) == shown


def test_a_value_that_is_nested_too_deeply_for_python_is_described() -> None:
    value: Any = 1
    for _ in range(100_000):
        value = [value]
    assert shortened(value, 20) == "[[[[[[[...]]]]]]]"
