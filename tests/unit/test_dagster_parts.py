"""Frames as Markdown tables."""

from __future__ import annotations

from typing import Any

import polars as pl
import pytest

from octogen_dagster.dagster_parts import inline_table, markdown_table

LINK = f"https://acme.example/{'x' * 90}"


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("a|b", "a\\|b"),
        ("a\\|b", "a\\\\\\|b"),
        ("two\nlines,\ttabs  and spaces", "two lines, tabs and spaces"),
        (None, ""),
        (False, "False"),
        (0, "0"),
        (0.87771929, "0.8777"),
        (["S", "M"], "['S', 'M']"),
        ("<img src=x> *NSYNC*", "\\<img src=x> \\*NSYNC\\*"),
        ("![](http://shop.example/a.png)", "![]\\(http://shop.example/a.png)"),
        ("http://a.example [b](http://c.example)", "http://a.example [b]\\(http://c.example)"),
        ("https://a.example/<img/src=x>", "https://a.example/\\<img/src=x>"),
        ("https://a.example/~b_c?x=(1)*", "https://a.example/~b_c?x=(1)*"),
        ("Boot (men) [new]", "Boot (men) [new]"),
        ("`a` ~~b~~", "\\`a\\` \\~\\~b\\~\\~"),
        ("x" * 80, "x" * 80),
        ("x" * 81, "x" * 79 + "…"),
        ("|" * 81, "\\|" * 79 + "…"),
        (LINK, LINK),
        ({"slug": "acme", "name": "Acme | Co"}, "Acme \\| Co"),
        ({"average": 4.5, "count": 12, "source": None}, "4.5, 12"),
        ({"name": None, "average": 4.5, "count": 12, "source": ""}, "4.5, 12"),
        ({"name": None, "slug": None}, ""),
    ],
)
def test_a_cell_is_short_text_without_markup(value: Any, shown: str) -> None:
    line = markdown_table(pl.DataFrame({"value": [value]})).splitlines()[2]
    assert line.removeprefix("| ").removesuffix(" |") == shown


def test_a_table_in_place_has_less_than_1000_characters_and_at_least_a_row() -> None:
    frame = pl.DataFrame({"title": ["👟" * 40] * 30})
    rows = len(inline_table(frame).splitlines()) - 2
    assert rows == 11  # a shoe is two characters for JavaScript
    assert inline_table(frame.head(rows)) == markdown_table(frame.head(rows))
    wide = pl.DataFrame({f"c{number}": ["x" * 80] * 2 for number in range(20)})
    assert inline_table(wide) == markdown_table(wide.head(1))
