"""What a materialization shows in the UI about a snapshot and about the read that made it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import dagster as dg
import polars as pl

from octogen_dagster.asset_defaults import Metadata
from octogen_dagster.frames.changes import CHANGES_DESCRIPTIONS, CHANGES_SCHEMA
from octogen_dagster.frames.details.schema import DETAIL_DESCRIPTIONS, DETAIL_SCHEMA
from octogen_dagster.frames.schema import COLUMN_DESCRIPTIONS, PRODUCT_SCHEMA
from octogen_dagster.previews import markdown_table

if TYPE_CHECKING:
    from collections.abc import Mapping

    from octogen_dagster.frames.scan import ProductScan, ScanStatistics

PREVIEW_ROWS = 5
_PREVIEW_COLUMNS = ("title", "brand", "current_price", "currency", "in_stock", "product_url")
_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


_DESCRIBED = (
    (PRODUCT_SCHEMA, COLUMN_DESCRIPTIONS),
    (CHANGES_SCHEMA, CHANGES_DESCRIPTIONS),
    (DETAIL_SCHEMA, DETAIL_DESCRIPTIONS),
)


def column_schema(schema: Mapping[str, pl.DataType]) -> dg.TableSchema:
    """Dagster's table schema; columns of this project's schemas are described."""
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
    """A product frame as a Markdown table of the columns that tell most."""
    filled = [column.name for column in frame if column.null_count() < len(frame)]
    shown = filled or frame.columns
    columns = [name for name in _PREVIEW_COLUMNS if name in shown] or shown[:8]
    return markdown_table(frame.select(columns))


def scan_metadata(scan: ProductScan, snapshot: pl.LazyFrame) -> Metadata:
    """Numbers of the read and of the products it brought, named `octogen/...`."""
    statistics = scan.statistics
    search = scan.search.model_dump(mode="json", exclude_none=True)
    metadata: Metadata = {
        "octogen/search": dg.MetadataValue.json(search),
        "octogen/source": _source(statistics),
        "octogen/truncated": statistics.truncated,
        "octogen/pages": statistics.pages,
        "octogen/resumed_pages": statistics.saved_pages,
        "octogen/requests": statistics.requests,
        "octogen/retries": statistics.retries,
        "octogen/rate_limit_wait_seconds": round(statistics.rate_limit_wait_seconds, 3),
        "octogen/repeats_removed": statistics.repeats,
        "octogen/restarts": statistics.restarts,
        "octogen/seconds": round(statistics.seconds, 3),
        "octogen/rows_per_second": round(statistics.rows_per_second, 1),
        "octogen/unknown_fields": sum(statistics.unknown_fields.values()),
        "octogen/fetched_at": dg.MetadataValue.timestamp(statistics.started_at),
    }
    if statistics.first_request_id and statistics.last_request_id:
        metadata["octogen/first_request_id"] = statistics.first_request_id
        metadata["octogen/last_request_id"] = statistics.last_request_id
    if statistics.unknown_fields:
        metadata["octogen/unknown_field_names"] = dg.MetadataValue.json(
            dict(statistics.unknown_fields.most_common())
        )
    return metadata | _product_metadata(snapshot)


def _source(statistics: ScanStatistics) -> str:
    if statistics.rebuilt:
        return "landed pages"
    return "service, continued from saved pages" if statistics.saved_pages else "service"


def _product_metadata(snapshot: pl.LazyFrame) -> Metadata:
    price = pl.col("current_price")
    numbers = (
        snapshot.select(
            null_share_current_price=price.is_null().mean(),
            null_share_brand=pl.col("brand").struct.field("name").is_null().mean(),
            **{f"price_p{round(share * 100):02}": price.quantile(share) for share in _QUANTILES},
        )
        .collect()
        .row(0, named=True)
    )
    return {
        f"octogen/{name}": round(value, 4)
        for name, value in numbers.items()
        if value is not None and math.isfinite(value)
    }


def progress(subject: str, statistics: ScanStatistics, expected: int | None) -> str:
    """One line on how far a read is.

    Args:
        subject: What is read: "Catalog 'acme'".
        statistics: Those so far.
        expected: Products there are, if known.
    """
    of = f" of {expected:,}" if expected else ""
    line = (
        f"{subject}: {statistics.rows:,}{of} products in {statistics.pages:,} pages, "
        f"{statistics.rows_per_second:,.0f} a second"
    )
    left = (expected or 0) - statistics.rows
    if left > 0 and not statistics.complete and statistics.rows_per_second:
        line += f", about {left / statistics.rows_per_second:,.0f} s left"
    return line
