"""build_product_details_asset: look up the full view of each product in a snapshot."""

from typing import Any

import dagster as dg

from octogen_dagster.api.catalog_sources import CatalogService
from octogen_dagster.assets.definition import RESOURCE, asset_arguments_of
from octogen_dagster.details.scan import DetailScan, DetailStatistics
from octogen_dagster.details.table import DETAILS_KIND
from octogen_dagster.snapshots.asset_decorator import SnapshotRun, snapshot_asset
from octogen_dagster.snapshots.loading import Snapshots, snapshot_inputs
from octogen_dagster.snapshots.metadata import require_products
from octogen_dagster.validation import require_percent


def build_product_details_asset(
    products: dg.AssetsDefinition,
    *,
    name: str | dg.AssetSpec | None = None,
    only_changed: bool = False,
    max_failed_percent: float = 5,
    resource_key: str = RESOURCE,
    **asset_arguments: Any,
) -> dg.AssetsDefinition:
    """Build an asset that looks up the full view of each product in another asset's snapshot.

    Lookups run concurrently within the organization's rate limit. The result is a complete snapshot
    with one row per product, in no particular order. For the columns, see
    `octogen_dagster.schemas.DETAIL_SCHEMA`. `status` is the lookup's result:

    * found: the row has the full view.
    * gone: the product is no longer in any catalog, even if the merchant still sells it.
    * mismatch: the URL leads to another product. The view of that product is not stored.
    * failed: the lookup failed even after retries, and `error` gives the reason. If the shop itself
      failed, the lookup is retried only once.

    The service returns only current data. A row describes the product at `looked_up_at`, even in a
    partition for a past time.

    Octogen charges $0.002 per lookup, or $2 for 1,000 products. For comparison, listing 1,000
    products costs $0.14. `only_changed` reduces the number of lookups. If a run fails, for example
    because its budget is spent, all its lookups are lost.

    Args:
        products: An asset with the columns in `octogen_dagster.schemas.PRODUCT_SCHEMA`. The details
            asset gets the same partitions.
        name: The asset's name or `dagster.AssetSpec`. Defaults to `<products>_details`.
        only_changed: Look up only products that are new, whose listing has changed since the
            previous details snapshot, or whose status in that snapshot is not `found`. All other
            rows are copied from that snapshot. In these rows, the fields outside the listing, such
            as the description and reviews, are as old as `looked_up_at`.
        max_failed_percent: Maximum percentage of lookups that can fail. If more fail, nothing is
            published. Gone products do not count as failures. Rows copied from the previous
            snapshot count as successful lookups. The run always ends after 50 consecutive failures.
        resource_key: The resource key of the `OctogenResource`. Change it if you use more than one.
        asset_arguments: Any other argument for `@dagster.asset`, such as `pool`, `group_name`,
            `automation_condition`, `retry_policy`.

    Raises:
        ValueError: `max_failed_percent` is not between 0 and 100, or the asset does not have the
            product columns, for example because it is a catalogs asset.
    """
    require_products(products, "catalog_key", "uuid", "product_url")
    require_percent("max_failed_percent", max_failed_percent)
    given = asset_arguments_of(name or f"{products.key.path[-1]}_details", asset_arguments)

    @snapshot_asset(
        {
            "partitions_def": products.partitions_def,
            **snapshot_inputs(products=products),
            "description": (
                f"The full view of each product in {products.key.to_user_string()}: description, "
                "categories, variants, identifiers, reviews, images and data added by Octogen. "
                "Each row is a product with its lookup status."
            ),
            "required_resource_keys": {resource_key},
        },
        given,
        resource_key=resource_key,
        needs_files=True,
        kind=DETAILS_KIND,
        made_from=products,
    )
    def details(
        run: SnapshotRun[CatalogService], partition: str | None, products: Snapshots
    ) -> dg.MaterializeResult[DetailScan]:
        log, subject = run.context.log, run.context.asset_key.to_user_string()
        if partition is not None:
            subject += f", partition {partition!r}"

        def report(statistics: DetailStatistics) -> None:
            log.info(statistics.progress(subject))

        scan = DetailScan(
            products.frame(partition),
            run.service,
            only_changed=only_changed,
            max_failed_percent=max_failed_percent,
            report=report,
        )
        return dg.MaterializeResult(value=scan)

    return details
