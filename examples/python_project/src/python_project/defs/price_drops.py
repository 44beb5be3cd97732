"""Products whose price dropped."""

import dagster as dg
import polars as pl

from octogen_dagster import catalog_partitions, follow_upstream


@dg.asset(
    partitions_def=catalog_partitions,
    automation_condition=follow_upstream(),
    group_name="octogen",
    kinds={"polars"},
)
def price_drops(changes: pl.LazyFrame) -> pl.LazyFrame:
    """Products whose price dropped since the previous snapshot, in the same currency."""
    old, new = pl.col("old_current_price"), pl.col("new_current_price")
    return (
        changes.filter(new < old, pl.col("old_currency").eq_missing(pl.col("new_currency")))
        .select(
            "product_url",
            title="new_title",
            currency="new_currency",
            old_price=old,
            new_price=new,
            saved=(1 - new / old).round(3),
        )
        .sort("saved", descending=True)
    )
