"""The details table: one row per product with its full view and lookup status."""

from __future__ import annotations

import polars as pl

from octogen_dagster.frames.cells import (
    Cells,
    Figures,
    Row,
    brand_text,
    cost_text,
    first_rows,
    price_text,
    product_link,
)
from octogen_dagster.frames.columns import (
    DETAIL_DESCRIPTIONS,
    DETAIL_SCHEMA,
    DIGESTED,
    IDENTITY,
    LISTED,
)
from octogen_dagster.frames.kinds import TableKind
from octogen_dagster.frames.stored import PRODUCT_KEY
from octogen_dagster.printable import count

_STATUSES = ("found", "gone", "mismatched", "failed")


def _cells(row: Row) -> Cells:
    return {
        "product": product_link(row, row["title"]),
        "status": row["status"],
        "brand": brand_text(row["brand"]),
        "price": price_text(row["current_price"], row["currency"]),
    }


def _sentence(metrics: Figures, _: pl.LazyFrame) -> str:
    statuses = [f"{metrics[name]:,} {name}" for name in _STATUSES if metrics.get(name)]
    text = f"**{count(metrics['rows'], 'product')}**: {', '.join(statuses) or 'none looked up'}"
    carried = [f"{metrics['carried_over']:,} carried over"] if metrics.get("carried_over") else []
    return "; ".join([text, *carried, *cost_text(metrics)])


DETAILS_KIND = TableKind(
    DETAIL_SCHEMA,
    DETAIL_DESCRIPTIONS,
    key=tuple(PRODUCT_KEY),
    volatile=("looked_up_at",),
    made_from={
        **{name: ["product_url"] for name in DETAIL_SCHEMA},
        **{name: [name] for name in IDENTITY},
        "status": ["uuid", "product_url"],
        "listed": [*LISTED, *DIGESTED],
    },
    sentence=_sentence,
    preview=first_rows(
        _cells, ["title", "product_url", "status", "brand", "current_price", "currency"]
    ),
    collected=("looked_up",),
    line="products",
)
