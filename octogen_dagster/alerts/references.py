"""Reference prices for price rules: the previous, lowest or median price."""

from __future__ import annotations

from datetime import timedelta

import polars as pl

from octogen_dagster.frames.stored import PRODUCT_KEY

ROW = "octogen_row"
"""The name of the row number column."""


def with_references(
    moved: pl.DataFrame, rows: pl.DataFrame, against: str, days: int
) -> pl.DataFrame:
    """Add each row's reference price (`before`) and the time from which it applies (`since`)."""
    if against == "before":
        return moved.with_columns(before="price_before", since="price_before_since")
    begin = pl.col("at") - timedelta(days=days)
    lasted = rows.select(
        *PRODUCT_KEY,
        pl.col("last_price").alias("before"),
        pl.col("last_price_unit").alias("then_unit"),
        pl.col("price_since").alias("since"),
        "valid_from",
        pl.col("valid_to").alias("until"),
    )
    window = (
        moved.select(ROW, *PRODUCT_KEY, "unit", "at")
        .join(lasted, on=PRODUCT_KEY, nulls_equal=True)
        .filter(
            pl.col("valid_from") < pl.col("at"),
            pl.col("until") > begin,
            pl.col("then_unit").eq_missing(pl.col("unit")),
            pl.col("before").is_not_null(),
        )
    )
    if against == "lowest":
        window = window.sort("before", "since", descending=[False, True], maintain_order=True)
    else:
        spans = pl.min_horizontal("until", "at") - pl.max_horizontal("valid_from", begin)
        window = (
            window.with_columns(span=spans.dt.total_microseconds(), since=begin)
            .sort("before", maintain_order=True)
            # Prices are weighted by their duration: the median is the lowest price at which the
            # cumulative duration reaches half the total.
            .filter(2 * pl.col("span").cum_sum().over(ROW) >= pl.col("span").sum().over(ROW))
        )
    references = window.unique(ROW, keep="first", maintain_order=True)
    return moved.join(references.select(ROW, "before", "since"), on=ROW)
