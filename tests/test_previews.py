from typing import Any

import polars as pl
import pytest

from octogen_dagster.previews import inline_table, markdown_table


def cell(value: Any) -> str:
    """Return the only cell of a table of one value."""
    line = markdown_table(pl.DataFrame({"value": [value]})).splitlines()[2]
    return line.removeprefix("| ").removesuffix(" |")


def test_a_table_has_a_header_and_a_line_for_each_row() -> None:
    frame = pl.DataFrame({"title": ["Boot", "Shirt"], "current_price": [79.5, 20.0]})
    assert markdown_table(frame).splitlines() == [
        "| title | current_price |",
        "| --- | --- |",
        "| Boot | 79.5 |",
        "| Shirt | 20.0 |",
    ]


def test_an_empty_frame_is_only_a_header() -> None:
    frame = pl.DataFrame(schema={"title": pl.String})
    assert markdown_table(frame).splitlines() == ["| title |", "| --- |"]


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("a|b", "a\\|b"),
        ("a\\b", "a\\\\b"),
        ("a\\|b", "a\\\\\\|b"),
        ("two\nlines,\ttabs  and spaces", "two lines, tabs and spaces"),
        (None, ""),
        (False, "False"),
        (0, "0"),
        (0.87771929, "0.8777"),
        (["S", "M"], "['S', 'M']"),
    ],
)
def test_a_cell_cannot_break_its_row(value: object, shown: str) -> None:
    assert cell(value) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("<img src=x> *NSYNC*", "\\<img src=x> \\*NSYNC\\*"),
        ("![](http://shop.example/a.png)", "![]\\(http://shop.example/a.png)"),
        ("http://a.example [b](http://c.example)", "http://a.example [b]\\(http://c.example)"),
        ("https://a.example/<img/src=x>", "https://a.example/\\<img/src=x>"),
        ("https://a.example/~b_c?x=(1)*", "https://a.example/~b_c?x=(1)*"),
        ("Boot (men) [new]", "Boot (men) [new]"),
        ("`a` ~~b~~", "\\`a\\` \\~\\~b\\~\\~"),
    ],
)
def test_markup_of_a_shop_is_shown_as_text(value: str, shown: str) -> None:
    assert cell(value) == shown


def test_a_column_cannot_break_the_header() -> None:
    assert markdown_table(pl.DataFrame({"a|b": [1]})).splitlines()[0] == "| a\\|b |"


def test_a_cell_is_cut_after_80_characters() -> None:
    assert cell("x" * 80) == "x" * 80
    assert cell("x" * 81) == "x" * 79 + "…"


def test_a_link_is_not_cut_at_80_characters() -> None:
    link = f"https://acme.example/{'x' * 90}"
    assert cell(link) == link
    assert len(cell(link * 4)) == 300


def test_a_table_that_is_shown_in_place_has_less_than_1000_characters() -> None:
    frame = pl.DataFrame({"title": ["👟" * 40] * 30})
    table = inline_table(frame)
    rows = len(table.splitlines()) - 2
    assert rows == 11  # a shoe is two characters for JavaScript
    assert inline_table(frame.head(rows)) == markdown_table(frame.head(rows))


def test_a_table_that_is_shown_in_place_has_a_row_however_long_it_is() -> None:
    frame = pl.DataFrame({f"c{number}": ["x" * 80] * 2 for number in range(20)})
    assert inline_table(frame) == markdown_table(frame.head(1))
    assert inline_table(frame.clear()) == markdown_table(frame.clear())


def test_a_long_cell_is_cut_before_it_is_escaped() -> None:
    assert cell("|" * 81) == "\\|" * 79 + "…"


def test_a_struct_with_a_name_is_shown_by_it() -> None:
    assert cell({"slug": "acme", "name": "Acme | Co"}) == "Acme \\| Co"


@pytest.mark.parametrize(
    "struct",
    [
        {"average": 4.5, "count": 12, "source": None},
        {"name": None, "average": 4.5, "count": 12, "source": ""},
    ],
)
def test_a_struct_without_a_name_is_shown_by_its_filled_fields(struct: dict[str, Any]) -> None:
    assert cell(struct) == "4.5, 12"


def test_a_struct_of_empty_fields_is_an_empty_cell() -> None:
    assert cell({"name": None, "slug": None}) == ""
