"""The builder of the history of products, and what puts snapshots into it."""

import warnings
from typing import Any

import dagster as dg

from octogen_dagster.api.search import ProductSearch
from octogen_dagster.assets.automation import wait_only_for_latest
from octogen_dagster.assets.definition import asset_arguments_of
from octogen_dagster.history.table import HISTORY_KIND
from octogen_dagster.history.update import HistoryUpdate
from octogen_dagster.snapshots.asset_decorator import SnapshotRun, snapshot_asset
from octogen_dagster.snapshots.loading import Snapshots, snapshot_input
from octogen_dagster.snapshots.metadata import SEARCH, require_products
from octogen_dagster.snapshots.partitions import PartitionLayout


def build_product_history_asset(
    products: dg.AssetsDefinition,
    *,
    name: str | dg.AssetSpec | None = None,
    **asset_arguments: Any,
) -> dg.AssetsDefinition:
    """Build an asset: what each product cost and whether it was in stock, on any day.

    A row is a product with the values (title, prices, currency, `in_stock`, `is_active`) that it
    had from `valid_from` until before `valid_to`; both are the `fetched_at` of snapshots. The
    columns are those of `octogen_dagster.HISTORY_SCHEMA`, and `scan_history` reads them.

    A run puts in the snapshot of the products, and the one that it replaced if no run has put that
    in, so a run that was missed is made up for by the next one. A snapshot that is there already
    changes nothing, and one that is older than others is slotted in: the table depends only on
    which snapshots are in it. A product that comes back has `reappeared`. A catalog that a snapshot
    has no products of was withdrawn and ends no rows, unless the search has filters: then a product
    that is gone no longer matches. A value that is null, such as one that the service does not
    send, is a value of its own.

    The numbers in the metadata are of the last snapshot in the table: `octogen/changed`,
    `octogen/appeared`, `octogen/disappeared`, `octogen/reappeared`, `octogen/current_products` and
    `octogen/median_price_usd`, and so for other currencies. `octogen/largest_price_drops` is a
    table.

    Args:
        products: An asset of `build_products_asset`, or one of your own with the columns
            `catalog_key`, `uuid`, `product_url`, `fetched_at` and the values, which
            `ParquetSnapshotIOManager` stores. The history has the same catalogs as partitions, and
            no times: it reads the snapshot of each time that it has not seen.
        name: The asset's name or `dagster.AssetSpec`; by default `<products>_history`.
        asset_arguments: Any other argument of `@dagster.asset`. With
            `automation_condition=octogen_dagster.follow_upstream()` the history follows each new
            snapshot.

    Raises:
        ValueError: The asset declares other columns, as the table of the catalogs does.
    """
    require_products(products, "catalog_key", "uuid", "fetched_at")
    partitions = PartitionLayout(products.partitions_def)
    given = asset_arguments_of(name or f"{products.key.path[-1]}_history", asset_arguments)
    condition = given.get("automation_condition")
    if partitions.times and condition is not None:
        given["automation_condition"] = wait_only_for_latest(condition)

    @snapshot_asset(
        {
            "partitions_def": partitions.catalogs,
            **snapshot_input("snapshots", products, _all_times(products)),
            "description": _description(products),
        },
        given,
        needs_previous=True,
        kind=HISTORY_KIND,
        made_from=products,
    )
    def history(
        _run: SnapshotRun, partition: str | None, snapshots: Snapshots
    ) -> dg.MaterializeResult[HistoryUpdate]:
        update = HistoryUpdate(snapshots.of_catalog(partition))
        return dg.MaterializeResult(value=update)

    return history


def _all_times(products: dg.AssetsDefinition) -> dg.PartitionMapping | None:
    """Map each catalog to its partitions of all times."""
    partitions_def = products.partitions_def
    if not isinstance(partitions_def, dg.MultiPartitionsDefinition):
        return None
    time = partitions_def.time_window_dimension.name
    (catalog,) = {*partitions_def.partition_dimension_names} - {time}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.BetaWarning)
        return dg.MultiToSingleDimensionPartitionMapping(catalog)


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
