"""The line of a product's prices."""

from __future__ import annotations

from typing import Any

import pytest

from octogen_dagster.history.product_history import ProductPast
from tests.histories import day


def row(begin: int, end: int | None, price: float | None, currency: str = "EUR") -> dict[str, Any]:
    return {
        "valid_from": day(begin),
        "valid_to": end and day(end),
        "is_current": end is None,
        "current_price": price,
        "currency": currency,
    }


@pytest.mark.parametrize(
    ("rows", "until", "line"),
    [
        ([row(1, None, 10)], 9, "▅▅▅▅▅▅▅▅▅"),
        ([row(1, None, 10)], 1, "▅▅▅▅▅▅▅▅▅"),
        ([row(1, 5, 10), row(5, None, 17)], 9, "▁▁▁▁█████"),
        ([row(1, 5, 10), row(5, 9, 17), row(9, None, 13)], 9, "▁▁▁▁████▄"),
        ([row(1, 3, 10), row(6, 8, 17)], 9, "▁▁   ██  "),
        ([row(1, 3, None), row(3, None, 17)], 9, "··▅▅▅▅▅▅▅"),
        ([row(1, 3, 10, "USD"), row(3, 5, 10), row(5, None, 17)], 9, "··▁▁█████"),
        # A price of one day is drawn, however long a character stands for.
        ([row(1, 14, 17), row(14, 15, 10), row(15, None, 17)], 25, "████▁████"),
    ],
    ids=["constant", "one snapshot", "risen", "last", "gone", "no price", "currencies", "short"],
)
def test_a_character_is_the_lowest_price_of_its_time(
    rows: list[dict[str, Any]], until: int, line: str
) -> None:
    assert ProductPast(rows, day(until)).price_line(9) == line


@pytest.mark.parametrize(("width", "line"), [(0, ""), (1, "▁"), (2, "▁█")])
def test_a_line_may_be_of_any_width(width: int, line: str) -> None:
    history = ProductPast([row(1, 5, 10), row(5, None, 17)], day(9))
    assert history.price_line(width) == line
