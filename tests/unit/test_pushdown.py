from __future__ import annotations

import math

import polars as pl
import pytest

from octogen_dagster.frames.pushdown import Pushdown

price, key = pl.col("current_price"), pl.col("catalog_key")


@pytest.mark.parametrize(
    ("predicate", "expected"),
    [
        (price > 5, Pushdown(price_min=5)),
        (price >= 5.5, Pushdown(price_min=5.5)),
        (pl.lit(5) < price, Pushdown(price_min=5)),
        (price < 9, Pushdown(price_max=9)),
        (pl.lit(9) >= price, Pushdown(price_max=9)),
        (price == 7, Pushdown(price_min=7, price_max=7)),
        (price.is_between(2, 3), Pushdown(price_min=2, price_max=3)),
        ((price > 2) & (price < 9) & (price > 4), Pushdown(price_min=4, price_max=9)),
        (key == "acme", Pushdown(catalogs=frozenset({"acme"}))),
        (key.is_in(["acme", "zen"]), Pushdown(catalogs=frozenset({"acme", "zen"}))),
        (key.is_in(["acme", "zen"]) & (key == "zen"), Pushdown(catalogs=frozenset({"zen"}))),
        ((key == "a") & (key == "b"), Pushdown(catalogs=frozenset())),
        ((price > 2) & (pl.col("title") == "x"), Pushdown(price_min=2)),
        # Not pushed: what the service could not answer exactly, or at all.
        ((price > 2) | (key == "acme"), Pushdown()),
        (~(price > 2), Pushdown()),
        (price != 2, Pushdown()),
        (key != "acme", Pushdown()),
        (price * 2 > 5, Pushdown()),
        (price > pl.col("original_price"), Pushdown()),
        (price > math.inf, Pushdown()),
        (price > -1, Pushdown()),
        (price.is_null(), Pushdown()),
        (pl.col("brand").struct.field("name") == "Acme", Pushdown()),
    ],
)
def test_what_is_pushed(predicate: pl.Expr, expected: Pushdown) -> None:
    assert Pushdown.of(predicate) == expected
