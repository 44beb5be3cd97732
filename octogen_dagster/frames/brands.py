"""The brands of a product snapshot, with their numbers of products and prices."""

from __future__ import annotations

import polars as pl

from octogen_dagster.frames.kinds import TableKind
from octogen_dagster.frames.stored import IN_STOCK, brand_name, known_price

_QUANTILES = {"price_p25": 0.25, "price_p50": 0.5, "price_p75": 0.75}

BRANDS_SCHEMA = pl.Schema(
    {
        "brand": pl.String(),
        "currency": pl.String(),
        "products": pl.Int64(),
        "in_stock_share": pl.Float64(),
        **dict.fromkeys(_QUANTILES, pl.Float64()),
    }
)
BRANDS_DESCRIPTIONS = {
    "brand": "The brand's name as the merchant shows it; null for products without a brand.",
    "currency": "ISO 4217 code of the prices; null for products without a currency.",
    "products": "The number of products of the brand with this currency.",
    "in_stock_share": "Share of the products that are in stock, 0 to 1; null if unknown for all.",
    "price_p25": "A quarter of the products cost less, in `currency`.",
    "price_p50": "The median price, in `currency`.",
    "price_p75": "A quarter of the products cost more, in `currency`.",
}
BRANDS_KIND = TableKind(BRANDS_SCHEMA, BRANDS_DESCRIPTIONS)


def product_brands(products: pl.LazyFrame) -> pl.LazyFrame:
    """Count the products of each brand, and compute quantiles of their prices in each currency.

    The rows have the columns of `BRANDS_SCHEMA`, those with the most products first.
    """
    price = known_price(pl.col("current_price").cast(pl.Float64))
    brand = brand_name(products.collect_schema())
    return (
        products.group_by(brand.alias("brand"), "currency")
        .agg(
            pl.len().cast(pl.Int64).alias("products"),
            IN_STOCK.mean().alias("in_stock_share"),
            *(price.quantile(share).alias(name) for name, share in _QUANTILES.items()),
        )
        .sort("products", "brand", "currency", descending=[True, False, False])
    )
