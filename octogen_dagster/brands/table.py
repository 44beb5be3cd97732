"""The brands table: product counts, in-stock shares and price quartiles by brand."""

from __future__ import annotations

import polars as pl

from octogen_dagster.frames.cells import Cells, Figures, Row, first_rows, price_text
from octogen_dagster.frames.kinds import Markdown, Published, Shown, TableKind
from octogen_dagster.frames.pictures import inline_svg, shares_svg
from octogen_dagster.frames.stored import IN_STOCK, brand_name, known_price
from octogen_dagster.printable import count

_MAX_BRANDS = 10
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
    "brand": "Brand name as the merchant shows it; null for products without a brand.",
    "currency": "ISO 4217 currency code; null for products without a currency.",
    "products": "Number of products with this brand and currency.",
    "in_stock_share": "Share of products in stock, from 0 to 1; null if stock is unknown for "
    "every product.",
    "price_p25": "25th percentile of the prices, in `currency`.",
    "price_p50": "Median price, in `currency`.",
    "price_p75": "75th percentile of the prices, in `currency`.",
}


def product_brands(products: pl.LazyFrame) -> pl.LazyFrame:
    """Count products and compute price quartiles for each brand and currency."""
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


def _cells(row: Row) -> Cells:
    share = row["in_stock_share"]
    return {
        "brand": row["brand"] or "",
        "products": row["products"],
        "median": price_text(row["price_p50"], row["currency"]),
        "in stock": "" if share is None else f"{share:.0%}",
    }


def _sentence(_: Figures, snapshot: pl.LazyFrame) -> str:
    counted = snapshot.select(
        pl.col("brand").drop_nulls().n_unique(),
        pl.col("currency").drop_nulls().n_unique(),
        pl.col("products").sum(),
    )
    brands, currencies, products = counted.collect().row(0)
    text = f"**{count(brands, 'brand')}**"
    if currencies:
        text += f" in {count(currencies, 'currency', 'currencies')}"
    return f"{text}, with {count(products, 'product')}"


def _stock_picture(of: Published) -> Shown:
    """Draw a chart of the in-stock shares for the brands with the most products."""
    known = of.rows.drop_nulls(["brand", "in_stock_share"]).head(_MAX_BRANDS).collect()
    shares = dict(known.unique("brand", maintain_order=True)["brand", "in_stock_share"].rows())
    picture = inline_svg("Stock by brand", shares_svg(shares)) if shares else ""
    return {"stock_by_brand": Markdown(picture)}


BRANDS_KIND = TableKind(
    BRANDS_SCHEMA,
    BRANDS_DESCRIPTIONS,
    made_from={
        "brand": ["brand"],
        "currency": ["currency"],
        "products": ["brand", "currency"],
        "in_stock_share": ["in_stock", "is_active"],
        **{name: ["current_price"] for name in _QUANTILES},
    },
    sentence=_sentence,
    preview=first_rows(_cells, BRANDS_SCHEMA.names(), _MAX_BRANDS),
    parts={"stock by brand": _stock_picture},
    line=None,
)
