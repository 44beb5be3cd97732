"""The builder of the details of products: the full view of each, looked up."""

from typing import Any

import dagster as dg

from octogen_dagster.api.catalog_sources import CatalogService
from octogen_dagster.assets.definition import RESOURCE, asset_arguments_of
from octogen_dagster.details.scan import DETAILS_KIND, DetailScan, DetailStatistics
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
    """Build an asset: the full view of each product in another asset's snapshot.

    Products are looked up several at a time within the organisation's rate limit. The result is a
    complete snapshot with one row for each product, in any order. The columns are those of
    `octogen_dagster.schemas.DETAIL_SCHEMA`. `status` is the result of the lookup:

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
        products: An asset with the columns of `octogen_dagster.schemas.PRODUCT_SCHEMA`. The details
            asset has the same partitions.
        name: The asset's name or `dagster.AssetSpec`; by default `<products>_details`.
        only_changed: Look up only products that are new, are listed differently than in the
            previous details snapshot, or were not found for it; carry the other rows over. What
            the listing does not show (a description, a review) is then as old as `looked_up_at`
            says.
        max_failed_percent: Percent of the lookups that may fail. If more fail, nothing is
            published. A product that is gone is not a failure, and a row that is carried over
            counts as a lookup that did not fail. 50 failures in a row end the run in any case.
        resource_key: The key of the `OctogenResource`; give another one to read with two of them.
        asset_arguments: Any other argument of `@dagster.asset`, such as `pool`, `group_name`,
            `automation_condition`, `retry_policy`.

    Raises:
        ValueError: max_failed_percent is not from 0 to 100, or the asset declares other columns,
            as the table of the catalogs does.
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
                "categories, variants, identifiers, reviews, images and what Octogen adds. A row "
                "is a product, with the status of its lookup."
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
