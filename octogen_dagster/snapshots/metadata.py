"""The metadata of a materialization: columns, a preview, a chart and the figures of a read."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

import dagster as dg

from octogen_dagster.asset_defaults import Metadata
from octogen_dagster.frames.brands import BRANDS_SCHEMA, of_largest_brands, product_brands
from octogen_dagster.frames.previews import preview, shops
from octogen_dagster.frames.schema import PRODUCT_SCHEMA
from octogen_dagster.previews import inline_table
from octogen_dagster.snapshots.brand_chart import MAX_BRANDS, brand_chart
from octogen_dagster.snapshots.columns import COLUMN_SCHEMA, column_schema

if TYPE_CHECKING:
    import polars as pl

    from octogen_dagster.frames.statistics import Figure, Figures


def snapshot_metadata(snapshot: pl.LazyFrame) -> Metadata:
    """Return the columns of a snapshot and a preview of its first rows.

    Products have the addresses of their shops as well, and products and brands a chart.
    """
    schema = snapshot.collect_schema()
    texts = {"preview": inline_table(preview(snapshot))}
    if schema == PRODUCT_SCHEMA:
        texts["shops"] = ", ".join(f"<{shop}>" for shop in shops(snapshot))
        texts["brands"] = brand_chart(product_brands(of_largest_brands(snapshot, MAX_BRANDS)))
    elif schema == BRANDS_SCHEMA:
        texts["brands"] = brand_chart(snapshot)
    return {
        COLUMN_SCHEMA: column_schema(schema),
        **{f"octogen/{name}": dg.MetadataValue.md(text) for name, text in texts.items() if text},
    }


def figures_metadata(figures: Figures) -> Metadata:
    """Return the figures of a read as metadata entries `octogen/<name>`."""
    return {f"octogen/{name}": _metadata_value(value) for name, value in figures.items()}


def _metadata_value(figure: Figure) -> dg.MetadataValue[Any] | str | int | float:
    if isinstance(figure, datetime):
        return dg.MetadataValue.timestamp(figure)
    return dg.MetadataValue.json(figure) if isinstance(figure, dict) else figure
