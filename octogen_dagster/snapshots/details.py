"""The details asset: the full view of each product of a snapshot."""

from typing import Any

import dagster as dg
import polars as pl

from octogen_dagster.asset_defaults import octogen_asset
from octogen_dagster.frames.details.failure_limit import require_share
from octogen_dagster.frames.details.scan import DetailScan
from octogen_dagster.frames.details.statistics import DetailStatistics
from octogen_dagster.snapshots.resource import OctogenResource


def build_product_details_asset(
    products: dg.AssetsDefinition,
    *,
    name: str | None = None,
    only_changed: bool = False,
    failure_threshold: float = 0.05,
    **asset_arguments: Any,
) -> dg.AssetsDefinition:
    """An asset: the full view of each product of another asset's snapshot.

    Every address of the snapshot is looked up once, several at a time within the organisation's
    rate budget. The result is always a whole snapshot, one row for each product in the same order,
    columns as in `octogen_dagster.DETAIL_SCHEMA`; `status` says what became of the lookup:

    * found: the row has the full view;
    * gone: no granted catalog has the product any more;
    * mismatch: the address leads to another product, whose view is not stored under this one's
      name;
    * failed: the lookup did, with all its retries; `error` says how.

    The service knows only the present: `looked_up_at` says when a row was looked up, also in a
    partition of a time that is over.

    Args:
        products: An asset with the columns of `octogen_dagster.PRODUCT_SCHEMA`; its partitions
            are this one's as well.
        name: The asset's name; by default `<products>_details`.
        only_changed: Look up only what is new or listed differently than in the details snapshot
            before, and what failed there; carry the other rows over. What the listing does not
            show (a description, a review) is then as old as `looked_up_at` says.
        failure_threshold: Share of the lookups, 0 to 1, that may fail; with more, nothing is
            published. Products that are gone are no failures, and rows that are carried over count
            as lookups that did not fail.
        asset_arguments: Any other argument of `@dagster.asset`, such as `pool`, `group_name`,
            `automation_condition`, `retry_policy`.

    Raises:
        ValueError: failure_threshold is no share.
    """
    require_share(failure_threshold)

    @octogen_asset(
        {
            "name": name or f"{products.key.path[-1]}_details",
            "partitions_def": products.partitions_def,
            "ins": {"products": dg.AssetIn(products.key)},
            "description": f"The full view of each product of {products.key.to_user_string()}.",
        },
        asset_arguments,
    )
    def details(
        context: dg.AssetExecutionContext, octogen: OctogenResource, products: pl.LazyFrame
    ) -> DetailScan:
        subject = context.asset_key.to_user_string()
        if context.has_partition_key:
            subject += f", partition {context.partition_key!r}"

        def report(statistics: DetailStatistics) -> None:
            context.log.info(statistics.progress(subject))

        return DetailScan(
            products,
            octogen.connection(),
            only_changed=only_changed,
            failure_threshold=failure_threshold,
            report=report,
        )

    return details
