"""The builder of the changes between two snapshots of products."""

import warnings
from datetime import datetime
from typing import Any

import dagster as dg
import polars as pl

from octogen_dagster.assets.automation import wait_only_for_latest
from octogen_dagster.assets.definition import asset_arguments_of
from octogen_dagster.changes.table import (
    CHANGES_KIND,
    effective_query_differences,
    product_changes,
    vanished_catalogs,
)
from octogen_dagster.frames.source import FETCHED_AT, FrameSource
from octogen_dagster.frames.stored import WATCHED, SnapshotPair
from octogen_dagster.io_source import errors_as_raised
from octogen_dagster.printable import count
from octogen_dagster.snapshots.asset_decorator import SnapshotRun, snapshot_asset
from octogen_dagster.snapshots.loading import Snapshots, snapshot_inputs
from octogen_dagster.snapshots.metadata import require_products
from octogen_dagster.snapshots.partitions import MAX_TIMES_BACK, PartitionLayout

_MAX_CATALOGS_IN_LOG = 10
_MAX_DIFFERENCES_IN_LOG = 10


def build_product_changes_asset(
    products: dg.AssetsDefinition,
    *,
    name: str | dg.AssetSpec | None = None,
    **asset_arguments: Any,
) -> dg.AssetsDefinition:
    """Build an asset: products that appeared, disappeared or changed between two snapshots.

    The title, the price and the availability are compared. If the products have time partitions,
    a snapshot is compared with the last one of the 31 partitions before it, and
    `octogen/previous_partition` in the metadata names that partition. Otherwise it is compared
    with the snapshot that it replaced. `ParquetSnapshotIOManager` keeps that snapshot, so it must
    store both assets. If there is no earlier snapshot, every product appeared, and the metadata
    has `octogen/first_snapshot`. A catalog of the previous snapshot that is not in the current one
    was withdrawn or renamed: its products are not reported, and `octogen/vanished_catalogs` names
    it. `octogen/effective_query_changed` says if the service understood the keywords differently
    than for the previous snapshot. With `follow_upstream()` the asset does not wait for
    earlier partitions that were never materialized. The columns are those of
    `octogen_dagster.schemas.CHANGES_SCHEMA`.

    Args:
        products: An asset of `build_products_asset`.
        name: The asset's name or `dagster.AssetSpec`; by default `<products>_changes`.
        asset_arguments: Any other argument of `@dagster.asset`.

    Raises:
        ValueError: The products have partitions of two dimensions that are not a catalog and a
            time, or the asset declares other columns, as the table of the catalogs does.
    """
    require_products(products, "catalog_key", "uuid")
    times = PartitionLayout(products.partitions_def).times
    given = asset_arguments_of(name or f"{products.key.path[-1]}_changes", asset_arguments)
    condition = given.get("automation_condition")
    if times and condition is not None:
        given["automation_condition"] = wait_only_for_latest(condition)

    mapping = _with_time_before(products) if times else None

    @snapshot_asset(
        {
            "partitions_def": products.partitions_def,
            **snapshot_inputs(snapshots=products, partition_mapping=mapping),
            "description": (
                f"The products of {products.key.to_user_string()} that appeared, disappeared or "
                "changed their title, price or availability since the previous snapshot. A row is "
                "a product, with its old and new values."
            ),
        },
        given,
        needs_previous=True,
        kind=CHANGES_KIND,
        made_from=products,
    )
    def changes(
        run: SnapshotRun, partition: str | None, snapshots: Snapshots
    ) -> dg.MaterializeResult[FrameSource]:
        return _changes(run.context, snapshots.pair(partition), has_times=bool(times))

    return changes


def _changes(
    context: dg.AssetExecutionContext,
    snapshots: SnapshotPair,
    *,
    has_times: bool,
) -> dg.MaterializeResult[FrameSource]:
    with errors_as_raised():
        frame = product_changes(snapshots).collect()
    first = snapshots.previous is None
    if first:
        context.log.info(
            "There is no earlier snapshot"
            + (f" in the {MAX_TIMES_BACK} partitions before" if has_times else "")
            + ": every product counts as appeared."
        )
    metadata: dict[str, Any] = {
        **_counts(frame),
        "octogen/first_snapshot": first,
    }
    if vanished := vanished_catalogs(snapshots):
        context.log.warning(
            f"This snapshot lacks {count(len(vanished), 'catalog')} of the previous one: "
            f"{', '.join(vanished[:_MAX_CATALOGS_IN_LOG])}. Their products are not reported as "
            "disappeared. Ask Octogen whether the API key may still read them, or whether they "
            "were renamed."
        )
        metadata["octogen/vanished_catalogs"] = dg.MetadataValue.json(vanished)
    differences = effective_query_differences(snapshots)
    if differences is not None:
        metadata["octogen/effective_query_changed"] = bool(differences)
    if differences:
        context.log.warning(
            "The service did not search as it did for the previous snapshot, so products may "
            "have appeared or disappeared for that reason alone. "
            f"{'; '.join(differences[:_MAX_DIFFERENCES_IN_LOG])}."
        )
    if snapshots.previous_partition:
        metadata["octogen/previous_partition"] = snapshots.previous_partition
    at = _fetched_at(snapshots)
    source = FrameSource(frame.lazy(), {FETCHED_AT: at} if at else {})
    return dg.MaterializeResult(value=source, metadata=metadata)


def _fetched_at(snapshots: SnapshotPair) -> str | None:
    """The time at which the current snapshot was read; None if it has no rows that say it."""
    if at := snapshots.file_metadata.get(FETCHED_AT):
        return at
    newest = snapshots.current.select(pl.col("^fetched_at$").max())
    found = newest.collect(engine="streaming")
    at = found.item() if found.width else None
    return at.isoformat() if isinstance(at, datetime) else None


def _counts(frame: pl.DataFrame) -> dict[str, int]:
    changes = frame.get_column("change").value_counts().rows_by_key("change")
    changed = (
        frame.get_column("changed")
        .explode(empty_as_null=False)
        .value_counts()
        .rows_by_key("changed")
    )
    return {
        **{
            f"octogen/{change}": changes[change][0][0] if change in changes else 0
            for change in ("appeared", "disappeared", "changed")
        },
        **{
            f"octogen/{name}_changed": changed[name][0][0] if name in changed else 0
            for name in WATCHED
        },
    }


def _with_time_before(products: dg.AssetsDefinition) -> dg.PartitionMapping:
    """Map each partition to itself and to the one of the time before it."""
    partitions_def = products.partitions_def
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.BetaWarning)  # both mappings are beta
        before = dg.TimeWindowPartitionMapping(
            start_offset=-1, end_offset=0, allow_nonexistent_upstream_partitions=True
        )
        if not isinstance(partitions_def, dg.MultiPartitionsDefinition):
            return before
        time = partitions_def.time_window_dimension.name
        return dg.MultiPartitionMapping(
            {
                name: dg.DimensionPartitionMapping(
                    name, before if name == time else dg.IdentityPartitionMapping()
                )
                for name in partitions_def.partition_dimension_names
            }
        )
