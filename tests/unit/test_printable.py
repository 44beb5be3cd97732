"""Rows as CSV for a spreadsheet, which evaluates no text of them."""

from __future__ import annotations

import csv
import io
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pytest

from octogen_dagster.printable import write_csv


def cells(column: str, *values: Any) -> list[list[str]]:
    written = io.StringIO()
    write_csv(written, [column], ([value] for value in values))
    return list(csv.reader(io.StringIO(written.getvalue())))


@pytest.mark.parametrize("sign", [*"=+-@", "\uff1d", "\uff0b", "\uff0d", "\uff20"])
@pytest.mark.parametrize("before", ["", " ", "\u00a0", "\t", "\r", "\n"])
def test_csv_has_no_formula_of_a_shop(sign: str, before: str) -> None:
    text = f'{before}{sign}HYPERLINK("https://evil.example")'
    for [cell] in cells(text, text, [text, "x"]):
        assert cell[0] in "'\\"  # a spreadsheet reads both as text
        assert cell.lstrip("'").split("HYPERLINK")[1].startswith('("https://evil.example")')


@pytest.mark.parametrize(
    ("value", "cell"),
    [
        (-5, "-5"),
        (-0.014, "-0.014"),
        (Decimal("-12.50"), "-12.50"),
        (None, ""),
        (True, "true"),
        (date(2026, 11, 1), "2026-11-01"),
        (datetime(2026, 11, 1, 6, tzinfo=UTC), "2026-11-01T06:00:00+00:00"),
        ([36, 38], "36 38"),
        ([{"label": "Öl", "since": date(2026, 11, 1)}], '{"label": "Öl", "since": "2026-11-01"}'),
        ('a, "b"\nc\x1b[2J', 'a, "b"\\nc\\x1b[2J'),
    ],
)
def test_csv_shows_each_value_in_one_cell(value: object, cell: str) -> None:
    assert cells("column", value) == [["column"], [cell]]
