"""What Dagster shows of a table: its columns with descriptions and lineage, a preview, figures."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

import dagster as dg
import polars as pl

from octogen_dagster.asset_definition import Metadata
from octogen_dagster.frames.brands import BRANDS_DESCRIPTIONS, BRANDS_SCHEMA
from octogen_dagster.frames.changes import CHANGES_DESCRIPTIONS, CHANGES_SCHEMA, WATCHED
from octogen_dagster.frames.columns import (
    COLUMN_DESCRIPTIONS,
    DETAIL_DESCRIPTIONS,
    DETAIL_SCHEMA,
    IDENTITY,
    LISTED,
    PRODUCT_SCHEMA,
)
from octogen_dagster.frames.history import (
    HISTORY_DESCRIPTIONS,
    HISTORY_SCHEMA,
    history_metrics,
    price_drops,
)
from octogen_dagster.frames.observed import OBSERVED, TRACKED, Contents
from octogen_dagster.frames.previews import preview, shops
from octogen_dagster.markdown import inline_table

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from octogen_dagster.frames.source import Metric, Metrics, Outcome

_MAX_DROPS = 10
COLUMN_SCHEMA = "dagster/column_schema"
_COLUMN_LINEAGE = "dagster/column_lineage"

CATALOGS_SCHEMA = pl.Schema(
    {
        "catalog": pl.String(),
        "display_name": pl.String(),
        "host": pl.String(),
        "source_base_url": pl.String(),
        "product_count": pl.Int64(),
        "last_indexed_at": pl.Datetime("us", "UTC"),
        "computed_at": pl.Datetime("us", "UTC"),
    }
)

CATALOGS_DESCRIPTIONS = {
    "catalog": "The catalog's key, as searches and partitions take it.",
    "display_name": "The catalog's name for people.",
    "host": "The host of the shop that the catalog serves; null if the source names none.",
    "source_base_url": DETAIL_DESCRIPTIONS["source_base_url"],
    "product_count": "The number of products; null if the source does not count them.",
    "last_indexed_at": "When the catalog was last indexed (UTC); null if never or unknown.",
    "computed_at": "When the service computed product_count (UTC); null if unknown.",
}

_DESCRIBED = (
    (PRODUCT_SCHEMA, COLUMN_DESCRIPTIONS),
    (CHANGES_SCHEMA, CHANGES_DESCRIPTIONS),
    (HISTORY_SCHEMA, HISTORY_DESCRIPTIONS),
    (DETAIL_SCHEMA, DETAIL_DESCRIPTIONS),
    (BRANDS_SCHEMA, BRANDS_DESCRIPTIONS),
    (CATALOGS_SCHEMA, CATALOGS_DESCRIPTIONS),
)

_WATCHED = [column for columns in WATCHED.values() for column in columns]
_KEYS = ("uuid", "catalog_key", "product_url")
CHANGES_SOURCES: Mapping[str, Sequence[str]] = {
    **{name: [name] for name in _KEYS},
    "change": ["catalog_key", "uuid", *_WATCHED],
    "changed": _WATCHED,
    **{f"{when}_{column}": [column] for column in _WATCHED for when in ("old", "new")},
}
"""The columns of the products that each column of their changes is made from."""

HISTORY_SOURCES: Mapping[str, Sequence[str]] = {
    **{name: [name] for name in (*_KEYS, *TRACKED)},
    **{name: ["fetched_at", *_WATCHED] for name in ("valid_from", "valid_to", "is_current")},
    "change": ["catalog_key", "uuid", *_WATCHED],
    "changed": _WATCHED,
}
"""The columns of the products that each column of their history is made from."""

DETAIL_SOURCES: Mapping[str, Sequence[str]] = {
    **{name: ["product_url"] for name in DETAIL_SCHEMA},
    **{name: [name] for name in IDENTITY},
    "status": ["uuid", "product_url"],
    "listed": LISTED,
}
"""The columns of the products that each column of their details is made or looked up from."""

BRANDS_SOURCES: Mapping[str, Sequence[str]] = {
    "brand": ["brand"],
    "currency": ["currency"],
    "products": ["brand", "currency"],
    "in_stock_share": ["in_stock"],
    **{name: ["current_price"] for name in BRANDS_SCHEMA if name.startswith("price_")},
}
"""The columns of the products that each column of their brands is made from."""


def column_schema(schema: Mapping[str, pl.DataType]) -> dg.TableSchema:
    """Return Dagster's table schema.

    Columns have descriptions in a table that has all columns of one of this project's own schemas.
    In any other one a column of the same name may mean something else.
    """
    described: dict[str, str] = {}
    for known, descriptions in _DESCRIBED:
        if known.items() <= schema.items():
            described |= descriptions
    return dg.TableSchema(
        [
            dg.TableColumn(name, type_name(dtype), description=described.get(name))
            for name, dtype in schema.items()
        ]
    )


def type_name(dtype: pl.DataType) -> str:
    """Return the name of a Polars type without its parameters, such as `list<struct>`."""
    if isinstance(dtype, pl.List | pl.Array):
        inner: Any = dtype.inner
        return f"list<{type_name(inner)}>"
    return dtype.base_type().__name__.lower()


def column_lineage(products: dg.AssetKey, sources: Mapping[str, Sequence[str]]) -> Metadata:
    """Return the metadata that says which columns of the products each column comes from."""
    lineage = {
        column: [dg.TableColumnDep(products, source) for source in of]
        for column, of in sources.items()
    }
    return {_COLUMN_LINEAGE: dg.MetadataValue.column_lineage(dg.TableColumnLineage(lineage))}


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
        "figures of the read": lambda: figures_metadata(outcome.metrics()),
        "figures of the rows": lambda: figures_metadata(outcome.row_metrics()),
    }
    if schema == PRODUCT_SCHEMA:
        parts["shops"] = lambda: _text("shops", ", ".join(f"<{shop}>" for shop in shops(snapshot)))
    if schema == HISTORY_SCHEMA and OBSERVED in outcome.file_metadata:
        contents = Contents.read(outcome.file_metadata)
        last = max(contents.observed, default=None)
        parts["figures of the history"] = lambda: {
            "octogen/snapshots": len(contents.observed),
            **figures_metadata(history_metrics(snapshot, last)),
        }
        left_out = [f"* {each.name}: {each.reason}" for each in contents.left_out]
        parts["snapshots left out"] = lambda: _text("left_out", "\n".join(left_out))
        if last:
            parts["price drops"] = lambda: _drops(price_drops(snapshot, last, _MAX_DROPS))
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


def figures_metadata(metrics: Metrics) -> Metadata:
    """Return figures as metadata entries `octogen/<name>`."""
    return {f"octogen/{name}": _metadata_value(value) for name, value in metrics.items()}


def _drops(drops: pl.DataFrame) -> Metadata:
    prices = [pl.col(name).round(2) for name in ("before", "after")]
    price = pl.format("{} → {} {}", *prices, pl.col("currency").fill_null(""))
    shown = drops.select(
        "title",
        price.str.strip_chars_end().alias("old → new"),
        pl.format("{} %", pl.col("change_percent").round(0).cast(pl.Int64)).alias("change"),
        pl.col("product_url").alias("product"),
    )
    return {} if drops.is_empty() else _text("largest_price_drops", inline_table(shown))


def _text(name: str, text: str) -> Metadata:
    return {f"octogen/{name}": dg.MetadataValue.md(text)} if text else {}


def _metadata_value(figure: Metric) -> dg.MetadataValue[Any] | str | int | float:
    if isinstance(figure, datetime):
        return dg.MetadataValue.timestamp(figure)
    return dg.MetadataValue.json(figure) if isinstance(figure, dict) else figure
