"""The metadata of a materialization: columns, a preview and the figures of a read."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

import dagster as dg
import polars as pl

from octogen_dagster.asset_defaults import Metadata
from octogen_dagster.frames.changes import CHANGES_DESCRIPTIONS, CHANGES_SCHEMA
from octogen_dagster.frames.details.schema import DETAIL_DESCRIPTIONS, DETAIL_SCHEMA
from octogen_dagster.frames.schema import COLUMN_DESCRIPTIONS, PRODUCT_SCHEMA
from octogen_dagster.previews import markdown_table
from octogen_dagster.snapshots.catalogs_schema import CATALOGS_DESCRIPTIONS, CATALOGS_SCHEMA

if TYPE_CHECKING:
    from collections.abc import Mapping

    from octogen_dagster.frames.statistics import Figure, Figures

PREVIEW_ROWS = 5
_PREVIEW_COLUMNS = ("title", "brand", "current_price", "currency", "in_stock", "product_url")

_DESCRIBED = (
    (PRODUCT_SCHEMA, COLUMN_DESCRIPTIONS),
    (CHANGES_SCHEMA, CHANGES_DESCRIPTIONS),
    (DETAIL_SCHEMA, DETAIL_DESCRIPTIONS),
    (CATALOGS_SCHEMA, CATALOGS_DESCRIPTIONS),
)


def column_schema(schema: Mapping[str, pl.DataType]) -> dg.TableSchema:
    """Return Dagster's table schema; columns of this project's own schemas have descriptions."""
    return dg.TableSchema(
        [
            dg.TableColumn(name, str(dtype), description=_description(name, dtype))
            for name, dtype in schema.items()
        ]
    )


def _description(name: str, dtype: pl.DataType) -> str | None:
    return next(
        (texts[name] for known, texts in _DESCRIBED if known.get(name) == dtype),
        None,
    )


def preview(frame: pl.DataFrame) -> str:
    """Format a frame as a Markdown table of its most telling columns.

    Columns that are null throughout are left out.
    """
    filled = [column.name for column in frame if column.null_count() < len(frame)]
    shown = filled or frame.columns
    columns = [name for name in _PREVIEW_COLUMNS if name in shown] or shown[:8]
    return markdown_table(frame.select(columns))


def snapshot_metadata(snapshot: pl.LazyFrame) -> Metadata:
    """Return the columns of a snapshot and a preview of its first rows."""
    return {
        "dagster/column_schema": column_schema(snapshot.collect_schema()),
        "octogen/preview": dg.MetadataValue.md(preview(snapshot.head(PREVIEW_ROWS).collect())),
    }


def figures_metadata(figures: Figures) -> Metadata:
    """Return the figures of a read as metadata entries `octogen/<name>`."""
    return {f"octogen/{name}": _metadata_value(value) for name, value in figures.items()}


def _metadata_value(figure: Figure) -> dg.MetadataValue[Any] | str | int | float:
    if isinstance(figure, datetime):
        return dg.MetadataValue.timestamp(figure)
    return dg.MetadataValue.json(figure) if isinstance(figure, dict) else figure
