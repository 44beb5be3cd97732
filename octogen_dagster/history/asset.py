"""The builders of histories, of products and of any table, and what puts snapshots into them."""

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
    """Build an asset: what each product cost and whether it was in stock, on any day.

    A row is a product with the values (page, title, prices, currency, `in_stock`, `is_active`) that
    it had from `valid_from` until before `valid_to`; both are the `fetched_at` of snapshots. The
    columns are those of `octogen_dagster.schemas.HISTORY_SCHEMA`, and `scan_history` reads them.

    A run puts in the snapshot of the products and all that it replaced since the last run of the
    history, up to 31, so missed runs are made up for. A snapshot that is there already
    changes nothing, and one that is older than others is slotted in: the table depends only on
    which snapshots are in it. A product that comes back has `reappeared`. A catalog that a snapshot
    has no products of was withdrawn and ends no rows, unless the search has filters: then a product
    that is gone no longer matches. A value that is null, such as one that the service does not
    send, is a value of its own.

    The numbers in the metadata are of the last snapshot in the table: `octogen/changed`,
    `octogen/appeared`, `octogen/disappeared`, `octogen/reappeared`, `octogen/current_products` and
    `octogen/median_price_usd`, in the currency of most products; those of others are in
    `octogen/metrics`. `octogen/largest_price_drops` is a table.

    Args:
        products: An asset of `build_products_asset`, of `build_linked_snapshot_asset`, or one of
            your own with the columns `catalog_key`, `uuid`, `product_url`, `fetched_at` and the
            values, which `ParquetSnapshotIOManager` stores. The history has the same catalogs as
            partitions, and no times: it reads the snapshot of each time that it has not seen. The
            time of a linked snapshot is its newest `exported_at`. What its view does not have is
            null, and `octogen/lacking` names it. A snapshot whose view lost `catalog_key`,
            `product_url` or `current_price` is left out.
        name: The asset's name or `dagster.AssetSpec`; by default `<products>_history`.
        asset_arguments: Any other argument of `@dagster.asset`. With
            `automation_condition=octogen_dagster.follow_upstream()` the history follows each new
            snapshot.

    Raises:
        ValueError: The asset declares other columns, as the table of the catalogs does.
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
    """Build an asset: what the rows of a table of your own said, on any day.

    It is as the history of products is: a row has the values that one of the table had from
    `valid_from` until before `valid_to`, with `is_current`, `change` and `changed`, the names of
    the tracked columns that changed. A row that is gone has ended. `scan_history` reads it, and
    `forget_snapshot` takes a snapshot out.

    The time of a snapshot is the newest `fetched_at` in its rows, or where they have none when it
    was stored. A `product_url` that is neither in the key nor tracked is kept too: another page
    begins a row, and another spelling of the same page does not. A row without one keeps the last
    known page. A column that is tracked later is null before.

    The numbers of the last snapshot are in the metadata, as `octogen/current_rows` and
    `octogen/changed`.

    Args:
        table: An asset that returns a frame, which `ParquetSnapshotIOManager` stores; or the key of
            one without partitions. Another IO manager than `ParquetSnapshotIOManager` loads the
            latter as a `polars.DataFrame`: its time is then when it was loaded, unless its rows
            have a `fetched_at`, and no snapshot waits for a missed run.
        key: The columns that tell its rows apart, none of which may be null; by default the key of
            its `TableKind`. A run reads the history in ranges of the last of them, so name the one
            with the most values last.
        tracked: The columns whose values are kept; by default those that its `TableKind` watches.
        name: The asset's name or `dagster.AssetSpec`; by default `<table>_history`.
        asset_arguments: Any other argument of `@dagster.asset`.

    Raises:
        TypeError: The table is no asset, or a list of columns is a text.
        ValueError: There is no key or no tracked column, one is named twice, one has the name of a
            column that each history has, such as `changed`, or the table declares other columns.
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
            raise TypeError(f"{argument} must be a list of columns, such as [{listed!r}].")
    if not tracking.key or not tracking.tracked:
        raise ValueError(
            f"The kind of {asset} does not say its key and what is watched. Give both, such as "
            'key=["sku"], tracked=["price"].'
        )
    if twice := [each for each in names if names.count(each) > 1]:
        raise ValueError(
            f"The column {twice[0]!r} is named twice. Name each column once, in key or in tracked."
        )
    if computed := [each for each in names if each in COMPUTED]:
        raise ValueError(
            f"The column {computed[0]!r} of {asset} has the name of one that each history has. "
            "Rename it in the table."
        )
    columns = None if isinstance(table, dg.AssetKey) else declared_columns(table)
    if columns is not None and (unknown := [each for each in names if each not in columns]):
        raise ValueError(
            f"{asset} has no column {unknown[0]!r}.{did_you_mean(unknown[0], columns)} Correct it."
        )
    said = (
        f"The rows of {asset} since its first snapshot, by {', '.join(tracking.key)}. A row has "
        "the values that it had from valid_from until before valid_to."
    )
    of_table = {each: text for each, text in kind.descriptions.items() if each in tracking.types}
    own = history_kind(tracking, of_table)
    given = asset_arguments_of(name or f"{_key_of(table).path[-1]}_history", asset_arguments)
    return _build(table, tracking, own, said, given)


def require_product_history(asset: dg.AssetsDefinition, argument: str = "history") -> None:
    """Refuse what is not an asset of `build_product_history_asset`."""
    require_asset(asset, argument)
    if kind_of(asset) is not HISTORY_KIND:
        raise ValueError(
            f"{asset.key.to_user_string()} is not an asset of build_product_history_asset. Pass "
            "the history of the products."
        )


def catalog_mapping(products: dg.AssetsDefinition) -> dg.PartitionMapping | None:
    """Map a catalog to its partitions of all times, or a partition to its catalog."""
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
            said = {STORED_AT: utc_now().isoformat(), RUN_ID: run.context.run.run_id}
            update = HistoryUpdate([StoredSnapshot(lambda: (loaded, said))], tracking)
        else:
            stored, remove_waiting = snapshots.unread(partition, run.context.asset_key)
            update = HistoryUpdate(stored, tracking, remove_waiting)
        return dg.MaterializeResult(value=update)

    return history


def _description(products: dg.AssetsDefinition) -> str:
    text = (
        f"The title, the price and the availability of each product in "
        f"{products.key.to_user_string()} since its first snapshot. A row is a product with the "
        "values that it had from valid_from until before valid_to."
    )
    found = products.metadata_by_key.get(products.key, {}).get(SEARCH)
    search = ProductSearch.model_validate(getattr(found, "value", None) or {})
    if not search.reads_whole_catalogs:
        text += " The search has filters, so a product that is gone no longer matches them."
    return text
