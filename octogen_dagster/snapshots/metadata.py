"""The metadata of a materialization: columns, a preview and the figures of a read."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

import dagster as dg
import polars as pl

from octogen_dagster.dagster_parts import Metadata, inline_table
from octogen_dagster.frames.columns import PRODUCT_SCHEMA
from octogen_dagster.frames.previews import preview, shops
from octogen_dagster.snapshots.columns import COLUMN_SCHEMA, column_schema

if TYPE_CHECKING:
    from collections.abc import Callable

    from octogen_dagster.frames.reading import Figure, Figures, Outcome


def snapshot_metadata(
    outcome: Outcome, snapshot: pl.LazyFrame, warn: Callable[[str], None]
) -> Metadata:
    """Return the columns of a published snapshot, a preview of its first rows, and its figures.

    Products have the addresses of their shops as well. What fails is left out, with a warning.
    """
    schema = snapshot.collect_schema()
    parts: dict[str, Callable[[], Metadata]] = {
        "columns": lambda: {COLUMN_SCHEMA: column_schema(schema)},
        "preview": lambda: _text("preview", inline_table(preview(snapshot))),
        "figures of the read": lambda: figures_metadata(outcome.figures()),
        "figures of the rows": lambda: figures_metadata(outcome.row_figures()),
    }
    if schema == PRODUCT_SCHEMA:
        parts["shops"] = lambda: _text("shops", ", ".join(f"<{shop}>" for shop in shops(snapshot)))
    metadata: Metadata = {}
    for name, part in parts.items():
        try:
            metadata |= part()
        except (Exception, pl.exceptions.PanicException) as error:
            warn(
                f"The {name} of the snapshot cannot be shown and are left out of its metadata: "
                f"{error}. The snapshot is published and whole."
            )
    return metadata


def figures_metadata(figures: Figures) -> Metadata:
    """Return figures as metadata entries `octogen/<name>`."""
    return {f"octogen/{name}": _metadata_value(value) for name, value in figures.items()}


def _text(name: str, text: str) -> Metadata:
    return {f"octogen/{name}": dg.MetadataValue.md(text)} if text else {}


def _metadata_value(figure: Figure) -> dg.MetadataValue[Any] | str | int | float:
    if isinstance(figure, datetime):
        return dg.MetadataValue.timestamp(figure)
    return dg.MetadataValue.json(figure) if isinstance(figure, dict) else figure
