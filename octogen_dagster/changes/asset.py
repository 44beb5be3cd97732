"""The builder of the changes between two snapshots in a history of products."""

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
    """Build an asset: products that appeared, disappeared or changed between two snapshots.

    The title, the price and the availability are compared, as the history has them. The rows are
    the changes of the last snapshot that differs from the previous one, so reading the same
    products again does not hide them. If the products have time partitions, so do the changes: the
    last snapshot of a partition is compared with the last one before that partition, which
    `octogen/previous_partition` in the metadata names. In the first snapshot every product
    appeared, and the metadata has `octogen/first_snapshot`. A catalog of the previous snapshot that
    is not in the current one was withdrawn or renamed: its products are not reported, and
    `octogen/vanished_catalogs` names it. When it returns, only what differs is reported. The
    columns are those of `octogen_dagster.schemas.CHANGES_SCHEMA`.

    Args:
        history: An asset of `build_product_history_asset`. The changes have the partitions of its
            products.
        name: The asset's name or `dagster.AssetSpec`; by default that of the history, with
            `_changes` in place of `_history`.
        asset_arguments: Any other argument of `@dagster.asset`.

    Raises:
        TypeError: The history is not an asset.
        ValueError: The asset is not a history of products.
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
            f"The products of {products.key.to_user_string()} that appeared, disappeared or "
            "changed their title, price or availability in the last snapshot that changed any. A "
            "row is a product, with its old and new values."
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
                "The history has no snapshot: all of them were forgotten. Materialize the products "
                "and then their history."
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
                f"This snapshot lacks {count(len(vanished), 'catalog')} of the previous one: "
                f"{', '.join(vanished[:_MAX_CATALOGS_IN_LOG])}. Their products are not reported as "
                "disappeared. Ask Octogen whether the API key may still read them, or whether they "
                "were renamed."
            )
            metadata["octogen/vanished_catalogs"] = dg.MetadataValue.json(vanished)
        source = FrameSource(frame.lazy(), {FETCHED_AT: at.isoformat()})
        return dg.MaterializeResult(value=source, metadata=metadata)

    return changes


def _times_of(partition: str, observed: Observed) -> tuple[datetime, datetime | None]:
    """The time of a partition's last snapshot, and of the last one before the partition."""
    times = [at for at, each in observed.items() if each.partition == partition]
    if not times:
        raise UnfitSnapshotError(
            f"The history has no snapshot of the partition {partition}. Materialize the products "
            "of that partition and then their history."
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
