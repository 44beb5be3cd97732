"""The asset of what changed between two snapshots. The comparison itself is in `frames`."""

import warnings
from typing import Any

import dagster as dg
import polars as pl

from octogen_dagster.asset_defaults import octogen_asset
from octogen_dagster.frames.changes import WATCHED, SnapshotPair, product_changes
from octogen_dagster.snapshots.partitions import MAX_TIMES_BACK, SnapshotPartitions


def build_product_changes_asset(
    products: dg.AssetsDefinition, *, name: str | None = None, **asset_arguments: Any
) -> dg.AssetsDefinition:
    """An asset: what appeared, disappeared or changed its title, price or availability.

    It compares a snapshot with the one of the time before, if the products have partitions of time
    (the last that there is, up to 31 times back, and the metadata says which one), and otherwise
    with the snapshot that was published before; that one is kept by `ParquetSnapshotIOManager`,
    which must store both assets. Without one everything appeared, and the metadata says
    `octogen/first_snapshot`. With `AutomationCondition.eager()` it does not wait for a time before
    that was passed over. Columns as in `octogen_dagster.CHANGES_SCHEMA`.

    Args:
        products: An asset of `build_products_asset`.
        name: The asset's name; by default `<products>_changes`.
        asset_arguments: Any other argument of `@dagster.asset`.

    Raises:
        ValueError: The asset's partitions are neither catalogs nor times.
    """
    times = SnapshotPartitions(products.partitions_def).times
    condition = asset_arguments.get("automation_condition")
    if times and condition is not None:
        asset_arguments["automation_condition"] = _without_waiting_for_the_past(condition)

    @octogen_asset(
        {
            "name": name or f"{products.key.path[-1]}_changes",
            "partitions_def": products.partitions_def,
            "ins": {
                "snapshots": dg.AssetIn(
                    products.key,
                    partition_mapping=_and_the_time_before(products) if times else None,
                )
            },
            "pool": None,
            "description": f"Changes of {products.key.to_user_string()} since the snapshot before.",
        },
        asset_arguments,
    )
    def changes(
        context: dg.AssetExecutionContext, snapshots: SnapshotPair
    ) -> dg.MaterializeResult[pl.DataFrame]:
        frame = product_changes(snapshots).collect()
        first = snapshots.previous is None
        if first:
            context.log.info(
                "There is no snapshot "
                + (f"in the {MAX_TIMES_BACK} partitions before" if times else "before")
                + " this one: every product appeared."
            )
        metadata: dict[str, Any] = {**_counts(frame), "octogen/first_snapshot": first}
        if snapshots.previous_partition:
            metadata["octogen/previous_partition"] = snapshots.previous_partition
        return dg.MaterializeResult(value=frame, metadata=metadata)

    return changes


def _without_waiting_for_the_past(
    condition: dg.AutomationCondition[dg.AssetKey],
) -> dg.AutomationCondition[dg.AssetKey]:
    """Of a condition for the latest time, let only that time's snapshot be waited for."""
    latest = dg.AutomationCondition.in_latest_time_window()
    if latest not in condition.children:
        return condition
    deps_missing_now: Any = dg.AutomationCondition.any_deps_match(
        dg.AutomationCondition.missing() & latest
    )
    return condition.replace(dg.AutomationCondition.any_deps_missing(), deps_missing_now)


def _counts(frame: pl.DataFrame) -> dict[str, int]:
    changes = frame.get_column("change").value_counts().rows_by_key("change")
    changed = frame.get_column("changed").explode().value_counts().rows_by_key("changed")
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


def _and_the_time_before(products: dg.AssetsDefinition) -> dg.PartitionMapping:
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
