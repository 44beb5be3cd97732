"""build_product_history_asset and build_history_asset: record every change between snapshots."""

import warnings
from collections.abc import Sequence
from typing import Any

import dagster as dg
import polars as pl

from octogen_dagster.api.search import ProductSearch
from octogen_dagster.assets.automation import wait_only_for_latest
from octogen_dagster.assets.definition import asset_arguments_of, require_asset
from octogen_dagster.frames.kinds import PLAIN, TableKind
from octogen_dagster.frames.source import STORED_AT, utc_now
from octogen_dagster.frames.stored import StoredSnapshot
from octogen_dagster.history.observed import RUN_ID
from octogen_dagster.history.table import HISTORY_KIND, history_kind
from octogen_dagster.history.tracking import COMPUTED, PRODUCTS, Tracking
from octogen_dagster.history.update import HistoryUpdate
from octogen_dagster.snapshots.asset_decorator import SnapshotRun, snapshot_asset
from octogen_dagster.snapshots.loading import Snapshots, snapshot_inputs, table_by_key
from octogen_dagster.snapshots.metadata import SEARCH, declared_columns, kind_of, require_products
from octogen_dagster.snapshots.partitions import PartitionLayout
from octogen_dagster.validation import did_you_mean


def build_product_history_asset(
    products: dg.AssetsDefinition,
    *,
    name: str | dg.AssetSpec | None = None,
    **asset_arguments: Any,
) -> dg.AssetsDefinition:
    """Build an asset that records each product's price and stock changes over time.

    Each row contains a product's URL, title, prices, currency, `in_stock` and `is_active` from
    `valid_from` until just before `valid_to`. Both times are the `fetched_at` of a snapshot.
    `octogen_dagster.schemas.HISTORY_SCHEMA` lists the columns. `scan_history` reads the history.

    Each run adds the current snapshot and up to 31 earlier snapshots that were stored since the
    last history run, so the history catches up after missed runs. Adding a snapshot twice changes
    nothing. Snapshots can be added in any order: the rows depend only on which snapshots the
    history contains.

    If a product returns, `change` is `reappeared`. If a snapshot contains no products from a whole
    catalog, the catalog is treated as withdrawn and its products stay current. If the search has
    filters, the products no longer match the search, so their rows end. Null is treated as a value,
    even if the service does not return the column.

    The metadata describes the latest snapshot in the history: `octogen/changed`,
    `octogen/appeared`, `octogen/disappeared`, `octogen/reappeared`, `octogen/current_products`,
    `octogen/median_price_usd` (in the most common currency; `octogen/metrics` lists the other
    currencies) and the table `octogen/largest_price_drops`.

    Args:
        products: An asset built by `build_products_asset` or `build_linked_snapshot_asset`, or your
            own asset, stored by `ParquetSnapshotIOManager`, with the columns `catalog_key`, `uuid`,
            `product_url`, `fetched_at` and the tracked columns. If `products` is partitioned by
            catalog, so is the history. The history is never partitioned by time; each run adds all
            time partitions that the history does not contain yet. The time of a linked snapshot is
            its newest `exported_at`. Columns that are missing from the linked view are null, and
            `octogen/lacking` lists them. A snapshot is left out if the view no longer has
            `catalog_key`, `product_url` or `current_price`.
        name: The asset's name or `dagster.AssetSpec`. Defaults to `<products>_history`.
        asset_arguments: Any other argument for `@dagster.asset`. Pass
            `automation_condition=octogen_dagster.follow_upstream()` to add each new snapshot
            automatically.

    Raises:
        ValueError: `products` does not declare the columns of a products asset, for example because
            it is a catalogs asset.
    """
    require_products(products, "catalog_key", "uuid", "fetched_at")
    given = asset_arguments_of(name or f"{products.key.path[-1]}_history", asset_arguments)
    return _build(products, PRODUCTS, HISTORY_KIND, _description(products), given)


def build_history_asset(
    table: dg.AssetsDefinition | dg.AssetKey,
    *,
    key: Sequence[str] | None = None,
    tracked: Sequence[str] | None = None,
    name: str | dg.AssetSpec | None = None,
    **asset_arguments: Any,
) -> dg.AssetsDefinition:
    """Build an asset that records how the rows in your table change over time.

    As in a product history, each row contains the values of a table row from `valid_from` until
    just before `valid_to`. The columns `is_current`, `change` and `changed` are added; `changed`
    lists the tracked columns that changed. When a row leaves the table, its history row ends.
    `scan_history` reads the history, and `forget_snapshot` removes a snapshot from the history.

    A snapshot's time is the newest `fetched_at` in its rows. If the table does not have this
    column, the time is when the snapshot was stored. The column `product_url` is kept even
    if it is in neither `key` nor `tracked`. A different URL starts a new row, but a different
    spelling of the same URL does not. If the URL is missing, the last known URL is kept. If you
    start tracking a column later, the column is null in earlier rows.

    Metadata such as `octogen/current_rows` and `octogen/changed` describes the latest snapshot.

    Args:
        table: An asset that returns a frame stored by `ParquetSnapshotIOManager`, or the key of an
            unpartitioned asset. If you pass a key and the asset uses another IO manager, the table
            is loaded as a `polars.DataFrame`. The snapshot's time is then the time of loading,
            unless the rows have a `fetched_at`. Snapshots that are replaced between two history
            runs are not recorded.
        key: The columns that identify a row. Their values can never be null. Defaults to the key in
            the asset's `TableKind`. Put the column with the most distinct values last, because a
            run reads the history in ranges of the last column.
        tracked: The columns whose changes are recorded. Defaults to the columns that the asset's
            `TableKind` watches.
        name: The asset's name or `dagster.AssetSpec`. Defaults to `<table>_history`.
        asset_arguments: Any other argument for `@dagster.asset`.

    Raises:
        TypeError: `table` is not an asset, or `key` or `tracked` is a string.
        ValueError: `key` or `tracked` is empty, lists a column twice, has a column that the table
            does not declare, or has a name that is reserved for histories, such as `changed`.
    """
    if not isinstance(table, dg.AssetKey):
        require_asset(table, "table")
    kind = PLAIN if isinstance(table, dg.AssetKey) else kind_of(table)
    watched = kind.watched if tracked is None else {each: (each,) for each in tracked}
    tracking = Tracking.of_table(tuple(key or kind.key), watched)
    names = [*tracking.key, *tracking.tracked]
    asset = _key_of(table).to_user_string()
    for argument, listed in (("key", key), ("tracked", tracked)):
        if isinstance(listed, str):
            raise TypeError(f"`{argument}` must be a list of column names, such as [{listed!r}].")
    if not tracking.key or not tracking.tracked:
        raise ValueError(
            f"The table kind of {asset} lacks a key or tracked columns. Pass "
            '`key` and `tracked`, such as `key=["sku"], tracked=["price"]`.'
        )
    if twice := [each for each in names if names.count(each) > 1]:
        raise ValueError(
            f"The column {twice[0]!r} is listed twice. List each column only once, in either `key` "
            "or `tracked`."
        )
    if computed := [each for each in names if each in COMPUTED]:
        raise ValueError(
            f"{asset} has a column {computed[0]!r}, a name reserved for histories. Rename the "
            "column in the table."
        )
    columns = None if isinstance(table, dg.AssetKey) else declared_columns(table)
    if columns is not None and (unknown := [each for each in names if each not in columns]):
        raise ValueError(
            f"{asset} has no column {unknown[0]!r}.{did_you_mean(unknown[0], columns)} Fix the "
            "name in `key` or `tracked`."
        )
    description = (
        f"Changes to the rows in {asset} since its first snapshot. The key is "
        f"{', '.join(tracking.key)}. Each row contains the values from valid_from until just "
        "before valid_to."
    )
    columns_of_table = {
        each: text for each, text in kind.descriptions.items() if each in tracking.types
    }
    table_history = history_kind(tracking, columns_of_table)
    given = asset_arguments_of(name or f"{_key_of(table).path[-1]}_history", asset_arguments)
    return _build(table, tracking, table_history, description, given)


def require_product_history(asset: dg.AssetsDefinition, argument: str = "history") -> None:
    """Raise an error unless the asset was built by `build_product_history_asset`."""
    require_asset(asset, argument)
    if kind_of(asset) is not HISTORY_KIND:
        raise ValueError(
            f"{asset.key.to_user_string()} is not a product history. Pass an asset built by "
            "build_product_history_asset."
        )


def catalog_mapping(products: dg.AssetsDefinition) -> dg.PartitionMapping | None:
    """Return the mapping from the products' partitions to the history's partitions.

    Return None to use Dagster's default mapping.
    """
    partitions_def = products.partitions_def
    if not isinstance(partitions_def, dg.MultiPartitionsDefinition):
        return None
    time = partitions_def.time_window_dimension.name
    (catalog,) = {*partitions_def.partition_dimension_names} - {time}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.BetaWarning)
        return dg.MultiToSingleDimensionPartitionMapping(catalog)


def _key_of(table: dg.AssetsDefinition | dg.AssetKey) -> dg.AssetKey:
    return table if isinstance(table, dg.AssetKey) else table.key


def _build(
    table: dg.AssetsDefinition | dg.AssetKey,
    tracking: Tracking,
    kind: TableKind,
    description: str,
    given: dict[str, Any],
) -> dg.AssetsDefinition:
    own: dict[str, Any] = {"description": description}
    if isinstance(table, dg.AssetKey):
        own |= {"ins": {"snapshots": table_by_key(table)}}
    else:
        partitions = PartitionLayout(table.partitions_def)
        condition = given.get("automation_condition")
        if partitions.times and condition is not None:
            given["automation_condition"] = wait_only_for_latest(condition)
        own |= {
            "partitions_def": partitions.catalogs,
            **snapshot_inputs(snapshots=table, partition_mapping=catalog_mapping(table)),
        }

    @snapshot_asset(
        own,
        given,
        needs_files=True,
        kind=kind,
        made_from=None if isinstance(table, dg.AssetKey) else table,
        loads={"snapshots": pl.DataFrame} if isinstance(table, dg.AssetKey) else None,
    )
    def history(
        run: SnapshotRun, partition: str | None, snapshots: Snapshots | pl.DataFrame
    ) -> dg.MaterializeResult[HistoryUpdate]:
        if isinstance(snapshots, pl.DataFrame):
            loaded = snapshots.lazy()
            file_metadata = {STORED_AT: utc_now().isoformat(), RUN_ID: run.context.run.run_id}
            update = HistoryUpdate([StoredSnapshot(lambda: (loaded, file_metadata))], tracking)
        else:
            stored, remove_waiting = snapshots.unread(partition, run.context.asset_key)
            update = HistoryUpdate(stored, tracking, remove_waiting)
        return dg.MaterializeResult(value=update)

    return history


def _description(products: dg.AssetsDefinition) -> str:
    text = (
        "Price, title and availability changes for each product in "
        f"{products.key.to_user_string()} since its first snapshot. Each row contains a product's "
        "values from valid_from until just before valid_to."
    )
    found = products.metadata_by_key.get(products.key, {}).get(SEARCH)
    search = ProductSearch.model_validate(getattr(found, "value", None) or {})
    if not search.reads_whole_catalogs:
        text += (
            " The search has filters, so a product that no longer matches the filters is also "
            "recorded as disappeared."
        )
    return text
