"""The metadata of a table in Dagster: columns with descriptions and lineage, preview, metrics."""

from __future__ import annotations

import functools
import json
from datetime import datetime
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import dagster as dg
import polars as pl

from octogen_dagster.asset_definition import Metadata, require_asset
from octogen_dagster.frames.alerts import ALERTS_DESCRIPTIONS, ALERTS_SCHEMA
from octogen_dagster.frames.alerts_update import largest_alerts
from octogen_dagster.frames.brands import BRANDS_DESCRIPTIONS, BRANDS_SCHEMA
from octogen_dagster.frames.catalogs import CATALOGS_DESCRIPTIONS, CATALOGS_SCHEMA
from octogen_dagster.frames.changes import CHANGES_DESCRIPTIONS, CHANGES_SCHEMA
from octogen_dagster.frames.columns import (
    COLUMN_DESCRIPTIONS,
    DETAIL_DESCRIPTIONS,
    DETAIL_SCHEMA,
    PRODUCT_SCHEMA,
)
from octogen_dagster.frames.history import (
    HISTORY_DESCRIPTIONS,
    HISTORY_SCHEMA,
    history_metrics,
    metrics_as_of,
    price_drops,
)
from octogen_dagster.frames.kinds import PLAIN, TableKind
from octogen_dagster.frames.observed import OBSERVED, Contents
from octogen_dagster.frames.pictures import inline_svg, shares_svg
from octogen_dagster.frames.position import POSITION_DESCRIPTIONS, POSITION_SCHEMA
from octogen_dagster.frames.stored import SnapshotPair, count_changes
from octogen_dagster.frames.summary import (
    MAX_EARLIER,
    alerts_preview,
    drops_preview,
    inline_table,
    preview,
    prices,
    summary,
    trend,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from octogen_dagster.frames.source import Metric, Metrics, Outcome

_MAX_DROPS = 10
COLUMN_SCHEMA = "dagster/column_schema"
_COLUMN_LINEAGE = "dagster/column_lineage"

ROW_COUNTS = ("dagster/row_count", "dagster/partition_row_count")
SEARCH = "octogen/search"
"""The metadata of an asset of products, and of each of its snapshots, with the search."""
_FIRST = (
    "octogen/summary",
    "octogen/trend",
    "octogen/prices",
    "octogen/largest_price_drops",
    "octogen/largest_alerts",
    "octogen/preview",
    *ROW_COUNTS,
    "octogen/appeared",
    "octogen/disappeared",
    "octogen/changed",
    "octogen/title_changed",
    "octogen/price_changed",
    "octogen/availability_changed",
    "octogen/price_p50_",
    "octogen/median_price_",
    "octogen/cost_",
    "octogen/seconds",
    "octogen/fetched_at",
)
"""The beginnings of the entries of a materialization that come first, in their order."""
_LAST = (
    SEARCH,
    "octogen/effective_query",
    "dagster/uri",
    COLUMN_SCHEMA,
    _COLUMN_LINEAGE,
    "octogen/first_request_id",
    "octogen/last_request_id",
    "octogen/metrics",
)
"""The entries that come last, in their order."""
_IF_ANY = {
    "truncated",
    "empty",
    "first_snapshot",
    "repeats_removed",
    "unknown_fields",
    "cost_saved_usd",
    "rate_limit_wait_seconds",
    "mismatched",
    "effective_query",
}
"""The metrics that have an entry only if there is anything to say: a flat line says nothing."""
_COLLECTED = (
    "walks",
    "pages",
    "resumed_pages",
    "requests",
    "charged_requests",
    "retries",
    "rows_per_second",
    "rows_per_product",
    "cost_usd_per_1000_products",
    "looked_up",
    "file_size_bytes",
    "price_quantiles",
    "null_fractions",
)
"""The metrics that are one entry together. A line of it is not wrapped, so each is short."""

_DESCRIBED = (
    (PRODUCT_SCHEMA, COLUMN_DESCRIPTIONS),
    (CHANGES_SCHEMA, CHANGES_DESCRIPTIONS),
    (HISTORY_SCHEMA, HISTORY_DESCRIPTIONS),
    (ALERTS_SCHEMA, ALERTS_DESCRIPTIONS),
    (DETAIL_SCHEMA, DETAIL_DESCRIPTIONS),
    (BRANDS_SCHEMA, BRANDS_DESCRIPTIONS),
    (CATALOGS_SCHEMA, CATALOGS_DESCRIPTIONS),
    (POSITION_SCHEMA, POSITION_DESCRIPTIONS),
)

_KINDS: WeakKeyDictionary[Any, TableKind] = WeakKeyDictionary()
"""By the step of an asset, what its table is: Dagster makes new definitions of one step."""


def noted(asset: dg.AssetsDefinition, kind: TableKind) -> dg.AssetsDefinition:
    """Return an asset of which it is noted what its table is."""
    _KINDS[asset.node_def] = kind
    return asset


def kind_of(asset: dg.AssetsDefinition) -> TableKind:
    """What the table of an asset is; `PLAIN` for one that is not of this package."""
    return _KINDS.get(asset.node_def, PLAIN) if asset.is_executable else PLAIN


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


def declared_columns(asset: dg.AssetsDefinition) -> set[str] | None:
    """The names of the columns that the one asset of a definition declares; None without any."""
    if len(asset.keys) != 1:
        raise ValueError(
            f"The definition has {len(asset.keys)} assets, and checks belong to one. Build them "
            "for each asset separately."
        )
    schema = asset.metadata_by_key.get(asset.key, {}).get(COLUMN_SCHEMA)
    if isinstance(schema, dg.TableSchemaMetadataValue):
        schema = schema.schema
    return {each.name for each in schema.columns} if isinstance(schema, dg.TableSchema) else None


def require_products(asset: dg.AssetsDefinition, *columns: str) -> None:
    """Refuse what is no asset, or one that declares other columns than these of its products."""
    require_asset(asset, "products")
    declared = declared_columns(asset)
    if missing := [name for name in columns if declared is not None and name not in declared]:
        raise ValueError(
            f"{asset.key.to_user_string()} has no column {missing[0]}. Give the asset of the "
            "products, such as build_products_asset returns."
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
    outcome: Outcome,
    snapshot: pl.LazyFrame,
    stored: Metadata,
    size: int | None,
    warn: Callable[[str], None],
    *,
    pair: Callable[[], SnapshotPair | None] = lambda: None,
    earlier: Callable[[], Sequence[Mapping[str, Any]]] = list,
) -> Metadata:
    """Return what is shown of a published snapshot, in the order in which a person reads it.

    `stored` are its number of rows and where it is, and `size` is that of its file in bytes, if
    it has one. `pair` are a snapshot of products and the one before; None for any other table.
    `earlier` are the metadata of materializations before, the newest first. What fails is left out,
    with a warning.
    """
    schema = snapshot.collect_schema()
    metrics: dict[str, Any] = {"rows": next(iter(stored.values()))}
    if size is not None:
        metrics["file_size_bytes"] = size
    metadata = dict(stored)

    def shown(some: Metrics) -> Metadata:
        metrics.update(some)
        return {
            f"octogen/{name}": _metadata_value(figure)
            for name, figure in some.items()
            if _is_shown(name, metrics)
        }

    parts: dict[str, Callable[[], Metadata]] = {
        "columns": lambda: {COLUMN_SCHEMA: column_schema(schema)},
        "preview": lambda: _table("preview", preview(snapshot)),
        "figures of the read": lambda: shown(outcome.metrics()),
        "figures of the rows": lambda: shown(outcome.row_metrics()),
        "figures of the changes": lambda: shown(_change_metrics(pair())),
    }
    past = functools.partial(_past, earlier, metadata)
    if schema == HISTORY_SCHEMA and OBSERVED in outcome.file_metadata:
        contents = Contents.read(outcome.file_metadata)
        last = max(contents.observed, default=None)
        times = sorted(contents.observed)[:-1][-MAX_EARLIER:]
        past = functools.partial(_past_of_history, snapshot, times)
        parts["figures of the history"] = lambda: shown(
            {"snapshots": len(contents.observed), **history_metrics(snapshot, last)}
        )
        left_out = [f"* {each.name}: {each.reason}" for each in contents.left_out]
        parts["snapshots left out"] = lambda: _text("left_out", "\n".join(left_out))
        if last:
            drops = functools.partial(price_drops, snapshot, last, _MAX_DROPS)
            parts["price drops"] = lambda: _table("largest_price_drops", drops_preview(drops()))
    if schema == ALERTS_SCHEMA:
        largest = functools.partial(largest_alerts, snapshot, outcome.file_metadata, _MAX_DROPS)
        parts["preview"] = lambda: _table("largest_alerts", alerts_preview(largest()))
    if schema == BRANDS_SCHEMA:
        parts["picture of the stock"] = lambda: _stock_picture(snapshot)
    parts |= {
        "prices": lambda: _text("prices", prices(metrics)),
        "summary": lambda: _text("summary", summary(snapshot, metrics)),
        "other figures": lambda: _collected(metrics),
    }
    # How many rows these have says little.
    if schema not in (CHANGES_SCHEMA, BRANDS_SCHEMA, ALERTS_SCHEMA):
        parts["line of snapshots"] = lambda: _text("trend", trend(schema, metrics, past()))
    for name, part in parts.items():
        try:
            metadata |= part()
        except (Exception, pl.exceptions.PanicException) as error:
            warn(
                f"The {name} of the snapshot cannot be shown and are left out of its metadata: "
                f"{error}. The snapshot is published and whole."
            )
    return in_reading_order(metadata)


def _stock_picture(brands: pl.LazyFrame) -> Metadata:
    """The share of the products in stock of the brands that have most, which come first."""
    known = brands.drop_nulls(["brand", "in_stock_share"]).head(_MAX_DROPS).collect()
    shares = dict(known.unique("brand", maintain_order=True)["brand", "in_stock_share"].rows())
    return (
        _text("stock_by_brand", inline_svg("Stock by brand", shares_svg(shares))) if shares else {}
    )


def in_reading_order(*parts: Mapping[str, Any] | None) -> Metadata:
    """Return the entries of a materialization in the order in which a person reads them."""
    metadata = {name: entry for part in parts for name, entry in (part or {}).items()}
    return dict(sorted(metadata.items(), key=lambda entry: _position(entry[0])))


def _is_shown(name: str, metrics: Mapping[str, Any]) -> bool:
    """True for a figure with an entry of its own; some have one only if they are not zero."""
    if name in _COLLECTED or name == "price_lines":
        return False
    return name not in _IF_ANY or _says_anything(metrics[name])


def _says_anything(figure: Any) -> bool:
    if isinstance(figure, dict):
        return any(map(_says_anything, figure.values()))
    return bool(figure)


def _collected(metrics: Mapping[str, Any]) -> Metadata:
    """One entry for the metrics that nobody plots."""
    collected = {name: metrics[name] for name in _COLLECTED if name in metrics}
    return {"octogen/metrics": dg.MetadataValue.json(collected)} if collected else {}


def _position(name: str) -> int:
    """The place of an entry: what is neither among the first nor among the last is between them."""
    for position, first in enumerate(_FIRST):
        if name.startswith(first):
            return position
    return len(_FIRST) + (1 + _LAST.index(name) if name in _LAST else 0)


def _change_metrics(pair: SnapshotPair | None) -> Metrics:
    """Count the products that are new, gone or have another price; nothing after another search."""
    if pair is None:
        return {}
    if pair.previous is None:
        return {"first_snapshot": True}
    searches = [
        json.loads(file_metadata.get("octogen.search", "null"))
        for file_metadata in (pair.file_metadata, pair.previous_file_metadata)
    ]
    if len({json.dumps(_search_key(search)) for search in searches}) > 1:
        return {}
    return {**count_changes(pair)}


def _past_of_history(history: pl.LazyFrame, times: Sequence[datetime]) -> list[Metrics]:
    return [metrics_as_of(history, at) for at in times]


def _past(earlier: Callable[[], Sequence[Mapping[str, Any]]], now: Metadata) -> list[Metrics]:
    """The metrics of the materializations before that are of the same search, the oldest first."""
    own = _search_key(_value(now.get(SEARCH)))
    return [
        {
            "rows" if name in ROW_COUNTS else name.removeprefix("octogen/"): _value(entry)
            for name, entry in metadata.items()
            if isinstance(_value(entry), int | float)
        }
        for metadata in reversed(earlier())
        if _search_key(_value(metadata.get(SEARCH))) == own
    ]


def _search_key(search: Any) -> Any:
    """A search without the size of its pages, which changes nothing that it finds."""
    return {**search, "page_size": None} if isinstance(search, dict) else None


def _value(entry: Any) -> Any:
    return entry.value if isinstance(entry, dg.MetadataValue) else entry


def _table(name: str, frame: pl.DataFrame) -> Metadata:
    return {} if frame.is_empty() else _text(name, inline_table(frame))


def _text(name: str, text: str) -> Metadata:
    return {f"octogen/{name}": dg.MetadataValue.md(text)} if text else {}


def _metadata_value(figure: Metric) -> dg.MetadataValue[Any] | str | int | float:
    if isinstance(figure, datetime):
        return dg.MetadataValue.timestamp(figure)
    return dg.MetadataValue.json(figure) if isinstance(figure, dict) else figure
