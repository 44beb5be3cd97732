"""The costs table: requests and dollars charged by Octogen, bytes billed by Google."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple

import polars as pl

from octogen_dagster.frames.cells import Cells, Figures, Row, cells_table, short_text
from octogen_dagster.frames.kinds import Published, Shown, TableKind
from octogen_dagster.printable import spent_text

if TYPE_CHECKING:
    from collections.abc import Iterable

    from octogen_dagster.snapshots.budget import Spent

COSTS_SCHEMA = pl.Schema(
    {
        "day": pl.Date(),
        "asset": pl.String(),
        "catalog": pl.String(),
        "requests": pl.Int64(),
        "cost_usd": pl.Float64(),
        "possibly_charged_usd": pl.Float64(),
        "billed_bytes": pl.Int64(),
    }
)

_DESCRIPTIONS = {
    "day": "The day on which the cost was reported (UTC).",
    "asset": "The asset key.",
    "catalog": "The partition key without the time, usually a catalog. The value is null if the "
    "asset is unpartitioned, or if a read failed in a run with several partitions.",
    "requests": "Requests charged by Octogen. Failed reads are not included, because their number "
    "of requests is unknown.",
    "cost_usd": "US dollars charged by Octogen.",
    "possibly_charged_usd": "Additional US dollars that Octogen might charge for requests whose "
    "responses were lost.",
    "billed_bytes": "Bytes billed by Google for queries.",
}
_DOLLARS = ("cost_usd", "possibly_charged_usd")
_SUMS = ("requests", *_DOLLARS, "billed_bytes")
_DECIMALS = 9  # sums of floats have noise beyond these
_MAX_SHOWN = 5


class Charge(NamedTuple):
    """The cost of an asset, as reported by a run."""

    at: datetime
    asset: str
    catalog: str | None
    requests: int
    spent: Spent
    billed_bytes: int


def costs_table(charges: Iterable[Charge]) -> pl.DataFrame:
    """Add up the costs by day, asset and catalog. The latest day comes first."""
    rows = [
        (
            *(each.at.date(), each.asset, each.catalog, each.requests),
            *(float(each.spent.usd), float(each.spent.possibly_usd), each.billed_bytes),
        )
        for each in charges
    ]
    sums = _sum_by(pl.DataFrame(rows, COSTS_SCHEMA, orient="row"), "day", "asset", "catalog")
    return sums.sort("day", "asset", "catalog", descending=[True, False, False])


def _sum_by(costs: pl.DataFrame, *by: str) -> pl.DataFrame:
    sums = costs.group_by(by).agg(pl.col(_SUMS).sum())
    return sums.with_columns(pl.col(_DOLLARS).round(_DECIMALS))


def _bytes_text(number: int) -> str:
    """Format a number of bytes like `52.0 GB`, or return an empty string for 0."""
    size = number / 1e6
    for unit in ("MB", "GB"):
        if size < 1000:
            return f"{size:,.1f} {unit}" if number else ""
        size /= 1000
    return f"{size:,.1f} TB"


def _totals(published: Published) -> Shown:
    sums = published.rows.select(pl.col(_SUMS).sum()).collect().row(0, named=True)
    return {
        "total_usd": round(sums["cost_usd"], _DECIMALS),
        "total_possibly_charged_usd": round(sums["possibly_charged_usd"], _DECIMALS),
        "total_billed_bytes": sums["billed_bytes"],
    }


def _sentence(figures: Figures, costs: pl.LazyFrame) -> str:
    since = costs.select(pl.col("day").min()).collect().item()
    google = _bytes_text(figures["total_billed_bytes"])
    spent = spent_text(figures["total_usd"], figures["total_possibly_charged_usd"])
    text = f"**{spent}** at Octogen"
    text += f" and **{google}** billed at Google" if google else ""
    return f"{text} since {since}" if since else text


def _cells(row: Row) -> Cells:
    return {
        "asset": short_text(row["asset"]),
        "requests": row["requests"],
        "dollars": spent_text(*(row[each] for each in _DOLLARS)),
        "billed": _bytes_text(row["billed_bytes"]),
    }


def _preview(costs: pl.LazyFrame) -> pl.DataFrame:
    sums = _sum_by(costs.collect(), "asset")
    largest = sums.sort("cost_usd", "billed_bytes", "asset", descending=[True, True, False])
    return cells_table(map(_cells, largest.head(_MAX_SHOWN).to_dicts()))


COSTS_KIND = TableKind(
    COSTS_SCHEMA,
    _DESCRIPTIONS,
    key=("day", "asset", "catalog"),
    sentence=_sentence,
    preview=_preview,
    parts={"totals": _totals},
    first=("total_",),
    line=None,
)
