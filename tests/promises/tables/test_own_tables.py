"""Mistakes in a table of one's own are told when definitions load, and its frame is made to fit."""

from typing import Any

import polars as pl
import pytest

from octogen_dagster.frames.kinds import Check, Rule, TableKind

SIZES = pl.Schema({"brand": pl.String(), "products": pl.Int64()})


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"descriptions": {"product": ""}}, "'product', .* Did you mean 'products'"),
        ({"key": ("brands",)}, "^key of a TableKind names the column 'brands'"),
        ({"made_from": {"name": ["brand"]}}, "^made_from of a TableKind names the column 'name'"),
        ({"rules": [Rule("few", "bad", pl.lit(True), 0.0, ("price",))]}, "^rules .* 'price'"),
        ({"rules": [Rule("few", "bad", pl.lit(True), 0.0, ())]}, "A rule .* the check 'few'"),
        ({"checks": {"few": Check("Few are bad.")}}, "The check 'few' .* would always pass"),
    ],
)
def test_a_kind_names_its_own_columns_and_checks(arguments: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        TableKind(SIZES, **arguments)


def test_the_columns_of_a_kind_without_a_schema_are_not_known() -> None:
    assert TableKind(descriptions={"sku": "The article."}, key=("sku",)).key == ("sku",)
