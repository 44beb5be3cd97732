"""The builders of assets that are made from products: their changes, details and brands."""

import warnings
from collections.abc import Callable
from typing import Any

import dagster as dg
import polars as pl

from octogen_dagster.asset_definition import RESOURCE, asset_arguments_of, require_asset
from octogen_dagster.automation import wait_only_for_latest
from octogen_dagster.frames.brands import BRANDS_SCHEMA, product_brands
from octogen_dagster.frames.changes import (
    CHANGES_SCHEMA,
    WATCHED,
    SnapshotPair,
    effective_query_differences,
    product_changes,
    vanished_catalogs,
)
from octogen_dagster.frames.columns import DETAIL_SCHEMA
from octogen_dagster.frames.details import DetailScan, DetailStatistics
from octogen_dagster.python_source import errors_as_raised
from octogen_dagster.snapshots.io_manager import frame_of, input_kind, pair_of
from octogen_dagster.snapshots.metadata import (
    BRANDS_SOURCES,
    CHANGES_SOURCES,
    COLUMN_SCHEMA,
    DETAIL_SOURCES,
    column_lineage,
    column_schema,
)
from octogen_dagster.snapshots.partitions import MAX_TIMES_BACK, PartitionLayout
from octogen_dagster.snapshots.ranges import Made, own_range, service_of, snapshot_asset
from octogen_dagster.snapshots.resource import OctogenResource
from octogen_dagster.validation import require_fraction

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
    `octogen_dagster.CHANGES_SCHEMA`.

    Args:
        products: An asset of `build_products_asset`.
        name: The asset's name or `dagster.AssetSpec`; by default `<products>_changes`.
        asset_arguments: Any other argument of `@dagster.asset`.

    Raises:
        ValueError: The products have partitions of two dimensions that are not a catalog and a
            time.
    """
    require_asset(products, "products")
    times = PartitionLayout(products.partitions_def).times
    given = asset_arguments_of(name or f"{products.key.path[-1]}_changes", asset_arguments)
    given |= own_range(given, products)
    policy = given.get("backfill_policy")
    condition = given.get("automation_condition")
    if times and condition is not None:
        given["automation_condition"] = wait_only_for_latest(condition)

    mapping = _with_time_before(products) if times else None

    @snapshot_asset(
        {
            "partitions_def": products.partitions_def,
            "ins": {"snapshots": dg.AssetIn(products.key, partition_mapping=mapping)},
            "pool": None,
            "metadata": {COLUMN_SCHEMA: column_schema(CHANGES_SCHEMA)},
            "description": (
                f"The products of {products.key.to_user_string()} that appeared, disappeared or "
                "changed their title, price or availability since the previous snapshot. A row is "
                "a product, with its old and new values."
            ),
        },
        given,
        loads=input_kind(products, SnapshotPair, policy),
    )
    def changes(context: dg.AssetExecutionContext, snapshots: Any) -> Callable[[str | None], Made]:
        def made(partition: str | None) -> Made:
            return _changes(
                context, products.key, pair_of(snapshots, partition), has_times=bool(times)
            )

        return made

    return changes


def _changes(
    context: dg.AssetExecutionContext,
    products: dg.AssetKey,
    snapshots: SnapshotPair,
    *,
    has_times: bool,
) -> Made:
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
        **column_lineage(products, CHANGES_SOURCES),
    }
    if vanished := vanished_catalogs(snapshots):
        context.log.warning(
            f"{len(vanished)} catalogs of the previous snapshot are not in this one: "
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
    return Made(frame, metadata)


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


def build_product_details_asset(
    products: dg.AssetsDefinition,
    *,
    name: str | dg.AssetSpec | None = None,
    only_changed: bool = False,
    max_failed_fraction: float = 0.05,
    resource_key: str = RESOURCE,
    **asset_arguments: Any,
) -> dg.AssetsDefinition:
    """Build an asset: the full view of each product in another asset's snapshot.

    Products are looked up several at a time within the organisation's rate limit. The result is a
    complete snapshot with one row for each product, in any order. The columns are those of
    `octogen_dagster.DETAIL_SCHEMA`. `status` is the result of the lookup:

    * found: the row has the full view.
    * gone: no catalog has the product any more, even if the merchant still does.
    * mismatch: the URL leads to another product, whose view is not stored.
    * failed: the lookup failed in spite of its retries; `error` says why. If the shop failed, it
      is retried once.

    The service knows only the present, so the view is that of `looked_up_at`, also in a partition
    of a past time.

    Each lookup is charged: $0.002, so $2 for a thousand products, where a page of a hundred
    products costs $0.014. `only_changed` looks up less. A run that fails, for example because its
    budget is spent, keeps none of its lookups.

    Args:
        products: An asset with the columns of `octogen_dagster.PRODUCT_SCHEMA`. The details asset
            has the same partitions.
        name: The asset's name or `dagster.AssetSpec`; by default `<products>_details`.
        only_changed: Look up only products that are new, are listed differently than in the
            previous details snapshot, or were not found for it; carry the other rows over. What
            the listing does not show (a description, a review) is then as old as `looked_up_at`
            says.
        max_failed_fraction: Share of the lookups, 0 to 1, that may fail. If more fail, nothing is
            published. A product that is gone is not a failure, and a row that is carried over
            counts as a lookup that did not fail. 50 failures in a row end the run in any case.
        resource_key: The key of the `OctogenResource`; give another one to read with two of them.
        asset_arguments: Any other argument of `@dagster.asset`, such as `pool`, `group_name`,
            `automation_condition`, `retry_policy`.

    Raises:
        ValueError: max_failed_fraction is not between 0 and 1.
    """
    require_asset(products, "products")
    require_fraction("max_failed_fraction", max_failed_fraction)
    given = asset_arguments_of(name or f"{products.key.path[-1]}_details", asset_arguments)
    given |= own_range(given, products)
    policy = given.get("backfill_policy")
    lineage = column_lineage(products.key, DETAIL_SOURCES)

    @snapshot_asset(
        {
            "partitions_def": products.partitions_def,
            "ins": {"products": dg.AssetIn(products.key)},
            "metadata": {COLUMN_SCHEMA: column_schema(DETAIL_SCHEMA)},
            "description": (
                f"The full view of each product in {products.key.to_user_string()}: description, "
                "categories, variants, identifiers, reviews, images and what Octogen adds. A row "
                "is a product, with the status of its lookup."
            ),
            "required_resource_keys": {resource_key},
        },
        given,
        resource_key=resource_key,
        loads=input_kind(products, pl.LazyFrame, policy),
    )
    def details(context: dg.AssetExecutionContext, products: Any) -> Callable[[str | None], Made]:
        octogen: OctogenResource = getattr(context.resources, resource_key)
        service = service_of(context, octogen)

        def made(partition: str | None) -> Made:
            subject = context.asset_key.to_user_string()
            if partition is not None:
                subject += f", partition {partition!r}"

            def report(statistics: DetailStatistics) -> None:
                context.log.info(statistics.progress(subject))

            scan = DetailScan(
                frame_of(products, partition),
                service,
                only_changed=only_changed,
                max_failed_fraction=max_failed_fraction,
                report=report,
            )
            return Made(scan, lineage)

        return made

    return details


def build_product_brands_asset(
    products: dg.AssetsDefinition,
    *,
    name: str | dg.AssetSpec | None = None,
    **asset_arguments: Any,
) -> dg.AssetsDefinition:
    """Build an asset: the brands of another asset's products, with their numbers and prices.

    There is a row for each brand and currency, since prices of two currencies do not compare. The
    columns are those of `octogen_dagster.BRANDS_SCHEMA`. No request is sent.

    Args:
        products: An asset with the columns of `octogen_dagster.PRODUCT_SCHEMA`. The brands asset
            has the same partitions.
        name: The asset's name or `dagster.AssetSpec`; by default `<products>_brands`.
        asset_arguments: Any other argument of `@dagster.asset`. With
            `automation_condition=octogen_dagster.follow_upstream()` the brands follow each new
            snapshot.
    """
    require_asset(products, "products")
    given = asset_arguments_of(name or f"{products.key.path[-1]}_brands", asset_arguments)
    given |= own_range(given, products)
    policy = given.get("backfill_policy")
    lineage = column_lineage(products.key, BRANDS_SOURCES)

    @snapshot_asset(
        {
            "partitions_def": products.partitions_def,
            "metadata": {COLUMN_SCHEMA: column_schema(BRANDS_SCHEMA)},
            "ins": {"products": dg.AssetIn(products.key)},
            "pool": None,
            "description": (
                f"The brands in {products.key.to_user_string()}: how many products each has, how "
                "many of them are in stock, and what they cost. A row is a brand in a currency."
            ),
        },
        given,
        loads=input_kind(products, pl.LazyFrame, policy),
    )
    def brands(_context: dg.AssetExecutionContext, products: Any) -> Callable[[str | None], Made]:
        return lambda partition: Made(product_brands(frame_of(products, partition)), lineage)

    return brands
