"""A custom alert rule: the price falls far below the list price."""

from dataclasses import dataclass

import polars as pl

from octogen_dagster import (
    build_price_alerts_asset,
    build_product_history_asset,
    build_products_asset,
    catalog_partitions,
)
from octogen_dagster.alerts import AlertRule


@dataclass(frozen=True, kw_only=True, eq=False)
class OnSale(AlertRule):
    """The price is at least `percent` below the list price.

    Attributes:
        percent: Minimum discount, as a percentage of the list price.
    """

    happened = "on sale"
    of_prices = True
    direction = -1

    percent: float = 30.0

    def condition(self, rows: pl.DataFrame) -> pl.Expr:
        is_on_sale = pl.col("price") <= pl.col("original_price") * (1 - self.percent / 100)
        was_on_sale = is_on_sale.forward_fill().shift().over("uuid", "catalog_key")
        return is_on_sale & ~was_on_sale.fill_null(False)

    def events(self, found: pl.DataFrame, rows: pl.DataFrame) -> pl.DataFrame:
        return found.with_columns(since="price_before_since", before="original_price")


products = build_products_asset("octogen_products", partitions_def=catalog_partitions)
history = build_product_history_asset(products)
alerts = build_price_alerts_asset(history, [OnSale(percent=40)])
