"""The builder of what Octogen exports of a URL list: its coverage, and its products by SKU."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, NamedTuple

import dagster as dg

from octogen_dagster.assets.definition import (
    RESOURCE,
    asset_arguments_of,
    asset_key,
    require_max_age,
)
from octogen_dagster.bigquery.linked_datasets import GRANT_WAIT_SECONDS
from octogen_dagster.bigquery.linked_tables import linked_table_asset
from octogen_dagster.bigquery.linked_view import check_arguments
from octogen_dagster.bigquery.queries import DOLLARS_PER_TIB, MAX_BYTES_BILLED
from octogen_dagster.bigquery.table_checks import build_check_specs
from octogen_dagster.url_lists.coverage_in_place import coverage_in_place, products_in_place
from octogen_dagster.url_lists.coverage_snapshots import coverage_asset, products_asset
from octogen_dagster.url_lists.export import Decorator, ListExport, matched_spec
from octogen_dagster.url_lists.list_asset import LIST_NAME, name_of_list, require_url_list
from octogen_dagster.validation import require_fraction

PROJECT = "octogen-catalog-exchange"
LOCATION = "US"
MIN_COVERED_FRACTION = 0.5


class UrlCoverage(NamedTuple):
    """The assets of what Octogen exports of a URL list.

    Attributes:
        coverage: Which addresses Octogen covers.
        products: Their products.
    """

    coverage: dg.AssetsDefinition
    products: dg.AssetsDefinition


def build_url_coverage_asset(
    url_list: dg.AssetsDefinition,
    *,
    name: str | dg.AssetSpec | None = None,
    products_name: str | dg.AssetSpec | None = None,
    in_place: bool = False,
    columns: Sequence[str] | None = None,
    min_covered_fraction: float = MIN_COVERED_FRACTION,
    max_age: timedelta | None = timedelta(days=2),
    listing_project: str = PROJECT,
    listing_location: str = LOCATION,
    dataset_id: str | None = None,
    control_plane: bool = False,
    grant_waits: Sequence[float] = GRANT_WAIT_SECONDS,
    max_bytes_billed: int | None = MAX_BYTES_BILLED,
    dollars_per_tib: float = DOLLARS_PER_TIB,
    resource_key: str = RESOURCE,
    bigquery_resource_key: str = "bigquery",
    **asset_arguments: Any,
) -> UrlCoverage:
    """Build two assets: which addresses of a URL list Octogen covers, and their products.

    Octogen joins a list with all of its catalogs once a day, and shares the result over BigQuery
    Analytics Hub. It charges nothing for that; Google bills the two queries. The coverage asset
    subscribes the project of the resource `analytics_hub` to the list's listing, or finds that it
    is subscribed, and reads the view `url_coverage_v1`. The products asset reads the view
    `products_current_v1` of the linked dataset.

    `coverage` has a row for each row of the list's table, with the columns `sku`, `url`,
    `normalized_url`, `covered`, `exported_at` (UTC) and `status`: `covered`, `not_covered`,
    `pending` (added since the last export, or nothing was exported yet) or `rejected`.

    `products` has a row for each product and each row of the list's table whose address it is of:
    the columns `sku`, `url`, `matched_by` and the others of the list's table, then those of the
    view. A column of the table that the view has too is named `own_<name>`. A product belongs to
    the addresses that are its `product_url`, however they are written (`matched_by` is `url`), and
    without any to those of its page (`page`) that share most parameters with it: the page is the
    host and the path, where `/collections/<x>/products/<y>` is `/products/<y>`. A covered address
    without any product gets those of its page as well. A product of no address keeps its row, with
    a `sku` of null.

    A list that was not exported yet is no failure: all of its addresses are pending, and products
    that are there stay as they are.

    The checks are `covered` (the share of exported addresses that are covered) and `fresh` (the age
    of the export) of the coverage, both warnings, and `not_empty`, `expected_columns` and, unless
    they stay in place, `matched` of the products: a warning if less than 90 % of the covered
    addresses have one. The assets need `OctogenResource` as `octogen`, `AnalyticsHubResource` as
    `analytics_hub`, and a `dagster_gcp.BigQueryResource` or a second `AnalyticsHubResource`.

    Args:
        url_list: An asset of `build_url_list_asset`.
        name: The name or `dagster.AssetSpec` of the coverage asset; by default
            `<url_list>_coverage`.
        products_name: That of the products asset; by default `<url_list>_products`.
        in_place: Leave all rows in BigQuery. Then the assets report the names of the views as
            `dagster/table_name`, with their rows and columns, and the coverage by one query that
            counts.
        columns: The names of the columns of products to read, `product_url` among them; by default
            all. BigQuery bills for those that are read.
        min_covered_fraction: The smallest share of the exported addresses that must be covered for
            the check `covered` to pass, from 0 to 1.
        max_age: The maximum age of the export; None leaves the check `fresh` out.
        listing_project: The project of the list's listing.
        listing_location: The location of the list's listing.
        dataset_id: The id of the linked dataset; by default `octogen_<listing id>`.
        control_plane: Register the subscriber with Octogen, which grants listings to registered
            subscribers; needs `OctogenControlPlaneResource` as `octogen_control_plane`.
        grant_waits: Seconds to wait for a grant before each further attempt of the same run.
        max_bytes_billed: The bytes that each query may be billed for; None sets no limit. BigQuery
            does not run a query that would be billed for more.
        dollars_per_tib: The price of 2**40 bytes billed, in dollars; by default Google's list price
            of on-demand queries in the US.
        resource_key: The key of the `OctogenResource`.
        bigquery_resource_key: The key of a `dagster_gcp.BigQueryResource`, or of an
            `AnalyticsHubResource`.
        asset_arguments: Any other argument of `@dagster.asset`, for both assets.

    Returns:
        The assets, as a tuple with the names `coverage` and `products`.

    Raises:
        TypeError: url_list is not an asset.
        ValueError: url_list is not an asset of `build_url_list_asset`, columns lack `product_url`,
            a fraction, an age or a number of bytes is out of range, or the listing's project or
            location is malformed.
        MissingPackageError: The packages of the extra `bigquery` are not installed.
    """
    require_url_list(url_list)
    list_name = name_of_list(url_list)
    check_arguments(columns, None, None)
    if columns is not None and "product_url" not in {each.casefold() for each in columns}:
        raise ValueError(
            "columns lack 'product_url', by which products are joined with addresses: add it."
        )
    require_fraction("min_covered_fraction", min_covered_fraction)
    require_max_age(max_age)
    export = ListExport(
        url_list=url_list.key,
        min_covered_fraction=min_covered_fraction,
        max_age=max_age,
        listing_project=listing_project,
        listing_location=listing_location,
        dataset_id=dataset_id,
        control_plane=control_plane,
        grant_waits=grant_waits,
        max_bytes_billed=max_bytes_billed,
        dollars_per_tib=dollars_per_tib,
        resource_key=resource_key,
        bigquery_resource_key=bigquery_resource_key,
    )
    export.listing("exchange", "listing")  # it checks the project and the location

    def decorator(
        asset_name: str | dg.AssetSpec, upstream: dg.AssetsDefinition, **own: Any
    ) -> Decorator:
        return linked_table_asset(
            "build_url_coverage_asset",
            upstream,
            asset_name,
            asset_arguments,
            max_age=None,
            max_bytes_billed=max_bytes_billed,
            bigquery_resource_key=bigquery_resource_key,
            **{
                "kinds": {"octogen", "bigquery"}
                if in_place
                else {"octogen", "bigquery", "parquet"},
                "metadata": {LIST_NAME: list_name},
                "retry_policy": dg.RetryPolicy(
                    max_retries=2, delay=30, backoff=dg.Backoff.EXPONENTIAL
                ),
                **own,
            },
        )

    stem = url_list.key.path[-1]
    name = name or f"{stem}_coverage"
    of_coverage = decorator(
        name,
        url_list,
        check_specs=export.check_specs(asset_key(asset_arguments_of(name, asset_arguments))),
        required_resource_keys=export.resource_keys,
        description=f"Which addresses of the URL list {list_name!r} Octogen covers, by its last "
        "daily export.",
        **({} if in_place else {"deps": [], "ins": {"urls": dg.AssetIn(url_list.key)}}),
    )
    coverage = (coverage_in_place if in_place else coverage_asset)(export, of_coverage)
    products_name = products_name or f"{stem}_products"
    key = asset_key(asset_arguments_of(products_name, asset_arguments))
    matches: dict[str, Any] = {
        "deps": [],
        "ins": {"covered": dg.AssetIn(coverage.key), "urls": dg.AssetIn(url_list.key)},
        "output_required": False,
        "check_specs": [*build_check_specs(key, None, None), matched_spec(key)],
    }
    of_products = decorator(
        products_name,
        coverage,
        description=f"The products of the addresses in the URL list {list_name!r}, by Octogen's "
        "last daily export.",
        **({} if in_place else matches),
    )
    products = (products_in_place if in_place else products_asset)(
        export, coverage.key, columns, of_products
    )
    return UrlCoverage(coverage, products)
