"""Builds a table's metadata for Dagster: column descriptions, lineage, a preview and metrics."""

from __future__ import annotations

import functools
from datetime import date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import dagster as dg
import polars as pl

from octogen_dagster.assets.definition import Metadata, require_asset
from octogen_dagster.frames.cells import MEDIANS, Figures
from octogen_dagster.frames.kinds import PLAIN, Markdown, Published, TableKind
from octogen_dagster.frames.markdown import inline_table, prices, trend
from octogen_dagster.frames.products import kind_of_rows, search_key

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from octogen_dagster.frames.kinds import Shown
    from octogen_dagster.frames.source import Metrics, Outcome

COLUMN_SCHEMA = "dagster/column_schema"
_COLUMN_LINEAGE = "dagster/column_lineage"

ROW_COUNTS = ("dagster/row_count", "dagster/partition_row_count")
SEARCH = "octogen/search"
"""Metadata key for the search, used on a products asset and on its materializations."""
_TEXTS = ("octogen/trend", "octogen/prices")
_COSTS_AND_TIMES = ("octogen/cost_", "octogen/seconds", "octogen/fetched_at")
"""Name prefixes of cost and time entries, which are placed after the entries in `kind.first`."""
_LAST = (
    SEARCH,
    "octogen/effective_query",
    "dagster/uri",
    COLUMN_SCHEMA,
    _COLUMN_LINEAGE,
    "octogen/metrics",
)
"""The entries placed last, in this order."""
_OMITTED_IF_EMPTY = {
    "truncated",
    "empty",
    "repeats_removed",
    "unknown_fields",
    "cost_saved_usd",
    "possibly_charged_usd",
    "rate_limit_wait_seconds",
    "effective_query",
}
"""Metrics that are omitted if they are zero, false or empty."""
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
    "file_size_bytes",
    "price_quantiles",
    "null_fractions",
    "null_share_current_price",
    "null_share_brand",
    "expected_rows",
    "request_ids",
)
"""Metrics in the `octogen/metrics` entry. Names are short, because the UI does not wrap lines."""

_KINDS: WeakKeyDictionary[Any, TableKind] = WeakKeyDictionary()
"""Table kinds, keyed by the asset's op. Copies of an asset definition have the same op."""
_MADE_FROM: WeakKeyDictionary[Any, dg.AssetsDefinition] = WeakKeyDictionary()
"""Upstream assets, keyed by the downstream asset's op."""


def register_kind(
    asset: dg.AssetsDefinition, kind: TableKind, made_from: dg.AssetsDefinition | None = None
) -> dg.AssetsDefinition:
    """Register `kind` and `made_from` for an asset, then return the asset."""
    _KINDS[asset.node_def] = kind
    if made_from is not None:
        _MADE_FROM[asset.node_def] = made_from
    return asset


def made_from_of(asset: dg.AssetsDefinition) -> dg.AssetsDefinition:
    """Return the upstream asset that an asset's table is built from."""
    return _MADE_FROM[asset.node_def]


def kind_of(asset: dg.AssetsDefinition) -> TableKind:
    """Return an asset's table kind, or `PLAIN` for assets from other packages."""
    return _KINDS.get(asset.node_def, PLAIN) if asset.is_executable else PLAIN


def column_schema(
    schema: Mapping[str, pl.DataType], descriptions: Mapping[str, str]
) -> dg.TableSchema:
    """Return Dagster's table schema with column descriptions."""
    return dg.TableSchema(
        [
            dg.TableColumn(name, type_name(dtype), description=descriptions.get(name))
            for name, dtype in schema.items()
        ]
    )


def declared_columns(asset: dg.AssetsDefinition) -> set[str] | None:
    """Return an asset's declared columns, or None if the asset declares no columns."""
    if len(asset.keys) != 1:
        raise ValueError(
            f"The definition has {len(asset.keys)} assets, but checks can be built for only one "
            "asset. Build the checks for each asset separately."
        )
    schema = asset.metadata_by_key.get(asset.key, {}).get(COLUMN_SCHEMA)
    if isinstance(schema, dg.TableSchemaMetadataValue):
        schema = schema.schema
    return {each.name for each in schema.columns} if isinstance(schema, dg.TableSchema) else None


def require_products(asset: dg.AssetsDefinition, *columns: str) -> None:
    """Check that an asset has the given columns. An asset that declares no columns is accepted."""
    require_asset(asset, "products")
    declared = declared_columns(asset)
    if missing := [name for name in columns if declared is not None and name not in declared]:
        raise ValueError(
            f"{asset.key.to_user_string()} has no column {missing[0]!r}. Pass a products asset, "
            "such as one built by build_products_asset."
        )


def type_name(dtype: pl.DataType) -> str:
    """Return the name of a Polars type without its parameters, such as `list<struct>`."""
    if isinstance(dtype, pl.List | pl.Array):
        inner: Any = dtype.inner
        return f"list<{type_name(inner)}>"
    return dtype.base_type().__name__.lower()


def column_lineage(products: dg.AssetKey, sources: Mapping[str, Sequence[str]]) -> Metadata:
    """Return lineage metadata that maps each column to its source columns in the products asset."""
    lineage = {
        column: [dg.TableColumnDep(products, source) for source in columns]
        for column, columns in sources.items()
    }
    return {_COLUMN_LINEAGE: dg.MetadataValue.column_lineage(dg.TableColumnLineage(lineage))}


def snapshot_metadata(
    kind: TableKind,
    outcome: Outcome,
    published: Published,
    stored: Metadata,
    warn: Callable[[str], None],
    *,
    also: Mapping[str, Any],
    size: int | None = None,
    earlier: Callable[[], Sequence[Mapping[str, Any]]] = list,
) -> Metadata:
    """Return a published snapshot's metadata, sorted for the UI.

    `stored` contains the row count and the location, and `size` is the file's size in bytes.
    `earlier` returns the metadata of earlier materializations, newest first. Entries that cannot be
    computed are skipped with a warning. Entries in `also` override other entries.
    """
    snapshot = published.rows
    schema = snapshot.collect_schema()
    kind = kind_of_rows(kind, schema)
    metrics: dict[str, Any] = {"rows": next(iter(stored.values()))}
    if size is not None:
        metrics["file_size_bytes"] = size
    metadata = dict(stored)

    # Not a dict, because a part of the table kind can have the same name as one of these entries.
    parts: list[tuple[str, Callable[[], Shown]]] = [
        ("columns", lambda: {COLUMN_SCHEMA: column_schema(schema, kind.descriptions)}),
        ("preview", lambda: {"preview": kind.preview(snapshot)}),
        ("metrics for the read", outcome.metrics),
        ("metrics for the rows", outcome.row_metrics),
        *((name, functools.partial(part, published)) for name, part in kind.parts.items()),
        ("prices", lambda: {"prices": Markdown(prices(metrics))}),
        # A source can provide its own summary, as a history does.
        (
            "summary",
            lambda: {
                "summary": Markdown(metrics.get("summary") or kind.sentence(metrics, snapshot))
            },
        ),
        ("other metrics", lambda: _collected(metrics, kind)),
    ]
    if line := kind.line:
        parts.append(
            (
                "trend over snapshots",
                lambda: {
                    "trend": Markdown(trend({"rows": line}, metrics, _past(earlier, metadata)))
                },
            )
        )
    for name, part in parts:
        try:
            shown = part()
            metrics |= shown
            metadata |= {
                entry if "/" in entry else f"octogen/{entry}": entry_of(each)
                for entry, each in shown.items()
                if _is_shown(entry, each, kind, metrics)
            }
        except (Exception, pl.exceptions.PanicException) as error:
            warn(
                f"Could not add the {name} to the metadata: {error}. The snapshot is complete and "
                "will be published."
            )
    return _in_reading_order(kind, {**metadata, **also})


def _in_reading_order(kind: TableKind, metadata: Metadata) -> Metadata:
    firsts = tuple(f"octogen/{name}" for name in kind.first)

    def position(name: str) -> tuple[int, int]:
        """Return an entry's group and its position in the group.

        Entries without a group come before the entries in `_LAST`.
        """
        is_text = isinstance(metadata[name], dg.MarkdownMetadataValue)
        texts, figures = (firsts, ()) if is_text else ((), firsts)
        begin = (("octogen/summary",), texts, ("octogen/preview",), _TEXTS)
        groups = (*begin, ROW_COUNTS, figures, _COSTS_AND_TIMES)
        for group, beginnings in enumerate(groups):
            for place, first in enumerate(beginnings):
                if name.startswith(first):
                    return group, place
        return (len(groups) + 1, _LAST.index(name)) if name in _LAST else (len(groups), 0)

    return dict(sorted(metadata.items(), key=lambda entry: position(entry[0])))


def _is_shown(name: str, each: Any, kind: TableKind, metrics: Figures) -> bool:
    """Return True if a metric gets a separate entry. Empty tables get no entry."""
    if isinstance(each, pl.DataFrame):
        return not each.is_empty()
    if name in (*_COLLECTED, *kind.collected, *_other_medians(metrics), "price_lines"):
        return False
    return _has_value(each) if isinstance(each, Markdown) or name in _OMITTED_IF_EMPTY else True


def _other_medians(metrics: Figures) -> list[str]:
    """Return the median prices for all currencies except the most common currency."""
    return [name for name in metrics if name.startswith(MEDIANS)][1:]


def _has_value(figure: Any) -> bool:
    if isinstance(figure, dict):
        return any(map(_has_value, figure.values()))
    return bool(figure)


def _collected(metrics: Mapping[str, Any], kind: TableKind) -> Shown:
    """Return the `metrics` entry: a dict of all metrics that need no separate plot."""
    names = (*_COLLECTED, *kind.collected, *_other_medians(metrics))
    collected = {name: metrics[name] for name in names if name in metrics}
    return {"metrics": collected} if collected else {}


def _past(earlier: Callable[[], Sequence[Mapping[str, Any]]], now: Metadata) -> list[Metrics]:
    """Return the metrics of earlier materializations of the same search, oldest first."""
    current = search_key(_value(now.get(SEARCH)))
    return [
        {
            "rows" if name in ROW_COUNTS else name.removeprefix("octogen/"): _value(entry)
            for name, entry in metadata.items()
            if isinstance(_value(entry), int | float)
        }
        for metadata in reversed(earlier())
        if search_key(_value(metadata.get(SEARCH))) == current
    ]


def _value(entry: Any) -> Any:
    return entry.value if isinstance(entry, dg.MetadataValue) else entry


def entry_of(shown: Any, table: Callable[[pl.DataFrame], str] = inline_table) -> Any:
    """Convert a metric to a metadata entry. Raise an error if Dagster does not support the type."""
    if isinstance(shown, pl.DataFrame):
        return dg.MetadataValue.md(table(shown))
    if isinstance(shown, Markdown):
        return dg.MetadataValue.md(shown)
    if isinstance(shown, datetime) and shown.tzinfo:
        return dg.MetadataValue.timestamp(shown)
    if isinstance(shown, date):  # includes datetimes without a time zone
        return dg.MetadataValue.text(str(shown))
    if isinstance(shown, Decimal):
        return dg.MetadataValue.float(float(shown))
    # Validates the value now. Otherwise Dagster would reject it only when the event is reported.
    dg.AssetObservation("shown", metadata={"shown": shown})
    return shown
