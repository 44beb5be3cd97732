"""build_product_changes_asset: compare two snapshots in a product history."""

from datetime import datetime
from typing import Any

import dagster as dg
import polars as pl

from octogen_dagster.assets.automation import wait_for_history
from octogen_dagster.assets.definition import asset_arguments_of
from octogen_dagster.changes.table import (
    CHANGES_KIND,
    last_change,
    product_changes,
    snapshot_before,
    vanished_catalogs,
)
from octogen_dagster.frames.source import FETCHED_AT, FrameSource
from octogen_dagster.frames.stored import WATCHED
from octogen_dagster.history.asset import catalog_mapping, require_product_history
from octogen_dagster.history.observed import Observed, read_observed
from octogen_dagster.history.tracking import UnfitSnapshotError
from octogen_dagster.printable import count
from octogen_dagster.snapshots.asset_decorator import SnapshotRun, snapshot_asset
from octogen_dagster.snapshots.loading import Snapshots, snapshot_inputs
from octogen_dagster.snapshots.metadata import made_from_of
from octogen_dagster.snapshots.partitions import PartitionLayout

_MAX_CATALOGS_IN_LOG = 10


def build_product_changes_asset(
    history: dg.AssetsDefinition,
    *,
    name: str | dg.AssetSpec | None = None,
    **asset_arguments: Any,
) -> dg.AssetsDefinition:
    """Build an asset that lists product changes between two snapshots.

    The asset lists the products that appeared, disappeared, or changed their title, price or
    availability, as recorded in the history. The rows come from the latest snapshot that differs
    from the previous snapshot, so a read without changes does not clear the table. If the products
    asset has time partitions, the changes asset has the same partitions. Each partition then
    compares its last snapshot with the last snapshot before the partition, and the metadata
    `octogen/previous_partition` contains the key of the earlier partition. For the first snapshot,
    all products are listed as appeared, and `octogen/first_snapshot` is true.

    If an entire catalog is missing from the current snapshot, Octogen has withdrawn or renamed it.
    The catalog's products are not reported as disappeared; `octogen/vanished_catalogs` lists the
    catalog instead. When the catalog returns, only real differences are reported. For the columns,
    see `octogen_dagster.schemas.CHANGES_SCHEMA`.

    Args:
        history: An asset built by `build_product_history_asset`. The changes asset gets the same
            partitions as the history's products.
        name: The asset's name or `dagster.AssetSpec`. Defaults to the history's name with
            `_changes` in place of `_history`.
        asset_arguments: Any other argument for `@dagster.asset`.

    Raises:
        TypeError: The history is not an asset.
        ValueError: The asset is not a product history.
    """
    require_product_history(history)
    products = made_from_of(history)
    layout = PartitionLayout(products.partitions_def)
    base = history.key.path[-1].removesuffix("_history")
    given = asset_arguments_of(name or f"{base}_changes", asset_arguments)
    own = {
        "partitions_def": products.partitions_def,
        **snapshot_inputs(history=history, partition_mapping=catalog_mapping(products)),
        "description": (
            f"Product changes in {products.key.to_user_string()}, from the latest snapshot with "
            "changes: products that appeared or disappeared, and products with a new title, price "
            "or availability. Each row contains a product's old and new values."
        ),
    }
    if layout.times:
        own["deps"] = [products]
        if (condition := given.get("automation_condition")) is not None:
            given["automation_condition"] = wait_for_history(condition, products.key)

    @snapshot_asset(own, given, needs_files=True, kind=CHANGES_KIND, made_from=history)
    def changes(
        run: SnapshotRun, partition: str | None, history: Snapshots
    ) -> dg.MaterializeResult[FrameSource]:
        file = history.file(layout.catalog_key(partition) if partition else None)
        observed = read_observed(file.metadata)
        if not observed:
            raise UnfitSnapshotError(
                "The history has no snapshots left, because all of them were removed. Materialize "
                "the products and then the history."
            )
        if layout.times:
            at, since = _times_of(str(partition), observed)
        else:
            at = last_change(file.frame, observed)
            since = snapshot_before(observed, at)
        frame = product_changes(file.frame, at, observed, since)
        metadata: dict[str, Any] = {**_counts(frame), "octogen/first_snapshot": since is None}
        if since and (before := observed[since].partition):
            metadata["octogen/previous_partition"] = before
        if vanished := vanished_catalogs(observed, at, since):
            run.context.log.warning(
                f"{count(len(vanished), 'catalog')} from the previous snapshot "
                f"{'is' if len(vanished) == 1 else 'are'} missing from the current snapshot: "
                f"{', '.join(vanished[:_MAX_CATALOGS_IN_LOG])}. The products in these catalogs are "
                "not reported as disappeared. Ask Octogen whether the API key still has access to "
                "the catalogs, or whether the catalogs were renamed."
            )
            metadata["octogen/vanished_catalogs"] = dg.MetadataValue.json(vanished)
        source = FrameSource(frame.lazy(), {FETCHED_AT: at.isoformat()})
        return dg.MaterializeResult(value=source, metadata=metadata)

    return changes


def _times_of(partition: str, observed: Observed) -> tuple[datetime, datetime | None]:
    """Return the times of a partition's last snapshot and of the snapshot before its first one."""
    times = [at for at, each in observed.items() if each.partition == partition]
    if not times:
        raise UnfitSnapshotError(
            f"The history has no snapshot for partition {partition}. Materialize the products for "
            "that partition and then the history."
        )
    return max(times), snapshot_before(observed, min(times))


def _counts(frame: pl.DataFrame) -> dict[str, int]:
    change, changed = frame["change"], frame["changed"].explode(empty_as_null=False)
    return {
        **{
            f"octogen/{name}": int((change == name).sum())
            for name in ("appeared", "disappeared", "changed")
        },
        **{f"octogen/{name}_changed": int((changed == name).sum()) for name in WATCHED},
    }
