"""The factories of the catalogs asset and of products assets."""

import functools
from collections.abc import Callable
from datetime import datetime
from typing import Any

import dagster as dg
import polars as pl
from pydantic import ValidationError

from octogen_dagster.api.models import MerchantCatalogSummary
from octogen_dagster.asset_defaults import octogen_asset
from octogen_dagster.errors import OctogenNotFoundError
from octogen_dagster.frames.scan import MIN_ROWS_RATIO, ProductScan
from octogen_dagster.frames.scan_statistics import ScanStatistics
from octogen_dagster.frames.search import ProductSearch
from octogen_dagster.frames.shares import require_share
from octogen_dagster.frames.window import is_within, utc_now
from octogen_dagster.snapshots.failures import RETRY_POLICY, permanent_errors_fail
from octogen_dagster.snapshots.partitions import (
    SnapshotPartitions,
    catalog_of,
    catalog_partition_key,
)
from octogen_dagster.snapshots.resource import OctogenResource

CATALOGS_SCHEMA = pl.Schema(
    {
        "catalog": pl.String(),
        "display_name": pl.String(),
        "source_base_url": pl.String(),
        "product_count": pl.Int64(),
        "last_indexed_at": pl.Datetime("us", "UTC"),
    }
)

ACCEPT_SHRINKING = "accept_shrinking"
_ACCEPT_SHRINKING_CONFIG = dg.Field(
    bool,
    default_value=False,
    is_required=False,
    description="True to publish this run's snapshot of whole catalogs however few rows it has.",
)


def build_catalogs_asset(
    name: str = "octogen_catalogs",
    *,
    partitions_def: dg.DynamicPartitionsDefinition | None = None,
    **asset_arguments: Any,
) -> dg.AssetsDefinition:
    """Build an asset: the table of the catalogs that the key may read.

    The columns are catalog, display_name, source_base_url, product_count and last_indexed_at (UTC).

    Args:
        name: The asset's name.
        partitions_def: Dynamic partitions, to which a run adds each new catalog. Pass those of
            the products asset.
        asset_arguments: Any other argument of `@dagster.asset`.
    """

    @octogen_asset(
        {"name": name, "description": "The catalogs this organisation may read."}, asset_arguments
    )
    def catalogs(context: dg.AssetExecutionContext, octogen: OctogenResource) -> pl.DataFrame:
        with permanent_errors_fail():
            summaries = octogen.list_catalogs()
        if partitions_def is not None:
            _add_partitions(context, partitions_def, summaries)
        rows = [summary.model_dump(include=set(CATALOGS_SCHEMA)) for summary in summaries]
        return pl.DataFrame(rows, schema=CATALOGS_SCHEMA).sort("catalog")

    return catalogs


def build_products_asset(
    name: str,
    search: ProductSearch | None = None,
    partitions_def: dg.PartitionsDefinition[str] | None = None,
    *,
    min_rows_ratio: float = MIN_ROWS_RATIO,
    **asset_arguments: Any,
) -> dg.AssetsDefinition:
    """Build an asset: the products of a search, or of a whole catalog in each partition.

    The search is the default of the run configuration, so it can be changed in the launchpad for
    one run. The columns are those of `octogen_dagster.PRODUCT_SCHEMA`.

    Args:
        name: The asset's name.
        search: What to read; by default everything.
        partitions_def: Partitions by catalog (`catalog_partitions`), by time (`snapshot_days`) or
            by both (`catalog_days`). In a partition of a catalog the search reads only that
            catalog. A past time is rebuilt from archived pages or refused, because the service
            knows only the present.
        min_rows_ratio: The smallest snapshot of whole catalogs that is published, as a share of
            the rows of the one that it replaces. With fewer rows, or none, the run fails and the
            snapshot there stays; `accept_shrinking: true` in the run configuration accepts it for
            one run. 0 publishes any snapshot. A search with filters or `max_products` may find any
            number of products.
        asset_arguments: Any other argument of `@dagster.asset`, such as `pool`, `kinds`,
            `group_name`, `owners`, `tags`, `description`. The default `retry_policy` retries a
            failed run three times, after 10, 30 and 70 seconds. An error that a retry cannot fix
            (status 401, 402, 403, 404 or 422) is never retried.

    Raises:
        ValueError: The search names catalogs although each partition is a catalog; the partitions
            are of times that do not include the present, or of two dimensions other than a catalog
            and a time; or `min_rows_ratio` is not from 0 to 1.
    """
    return ProductsAsset(
        name, search or ProductSearch(), partitions_def, min_rows_ratio=min_rows_ratio
    ).definition(**asset_arguments)


class ProductsAsset:
    """The builder of a products asset.

    Args:
        name: The asset's name.
        search: The default of the run configuration.
        partitions_def: The asset's partitions.
        min_rows_ratio: As for `build_products_asset`.
        clock: Returns the present time.

    Raises:
        ValueError: As for `build_products_asset`.
    """

    def __init__(
        self,
        name: str,
        search: ProductSearch,
        partitions_def: dg.PartitionsDefinition[str] | None = None,
        *,
        min_rows_ratio: float = MIN_ROWS_RATIO,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        require_share("min_rows_ratio", min_rows_ratio)
        self._name = name
        self._min_rows_ratio = min_rows_ratio
        self._search = search
        self._partitions_def = partitions_def
        self._partitions = SnapshotPartitions(partitions_def)
        self._clock = clock
        if self._partitions.catalogs is not None and search.catalogs:
            raise ValueError(
                f"Asset {name!r}: each partition is a catalog, so the search must not name "
                "catalogs. Remove `catalogs` from the search."
            )
        if self._partitions.times is not None and self._partitions.times.end_offset < 1:
            raise ValueError(
                f"Asset {name!r}: its time partitions do not include the present, and the service "
                "knows only the present. Set end_offset=1, or use octogen_dagster.snapshot_days "
                "or catalog_days."
            )

    def definition(self, **asset_arguments: Any) -> dg.AssetsDefinition:
        """Build the asset's definition.

        Args:
            asset_arguments: Any other argument of `@dagster.asset`.
        """
        has_catalogs = self._partitions.catalogs is not None

        @octogen_asset(
            {
                "name": self._name,
                "partitions_def": self._partitions_def,
                "config_schema": {
                    **search_config(self._search, catalogs=not has_catalogs),
                    ACCEPT_SHRINKING: _ACCEPT_SHRINKING_CONFIG,
                },
                "description": (
                    "The products of each catalog." if has_catalogs else "The products of a search."
                ),
                "retry_policy": RETRY_POLICY,
            },
            asset_arguments,
        )
        def products(context: dg.AssetExecutionContext, octogen: OctogenResource) -> ProductScan:
            return self._scan(context, octogen)

        return products

    def _scan(self, context: dg.AssetExecutionContext, octogen: OctogenResource) -> ProductScan:
        config = dict(context.op_execution_context.op_config)
        min_rows_ratio = 0.0 if config.pop(ACCEPT_SHRINKING) else self._min_rows_ratio
        search = _configured_search(config)
        window = None
        if self._partitions_def is not None:
            window = self._partitions.window(context.partition_key)
            if key := self._partitions.catalog_key(context.partition_key):
                _require_partition(context, self._partitions.catalogs, key)
                search = search.model_copy(update={"catalogs": [catalog_of(key)]})
        list_granted = functools.cache(lambda: _list_granted(search, octogen))
        subject = f"Catalog {search.catalogs[0]!r}" if len(search.catalogs) == 1 else "The search"

        def report(statistics: ScanStatistics) -> None:
            expected = None if statistics.rebuilt else _expected_rows(search, list_granted())
            context.log.info(statistics.progress(subject, expected))
            if statistics.complete and not statistics.rows:
                context.log.warning(
                    f"{subject} found no products. Check its filters, or the API key's access."
                )

        with permanent_errors_fail():
            if window is None or is_within(window, self._clock()):
                list_granted()  # a catalog that is not granted fails early
            return ProductScan(
                search,
                octogen.connection(),
                report,
                list_granted=list_granted,
                window=window,
                min_rows_ratio=min_rows_ratio,
                clock=self._clock,
            )


def _require_partition(
    context: dg.AssetExecutionContext, catalogs: dg.PartitionsDefinition[Any] | None, key: str
) -> None:
    """Fail the run before it reads if its partition was deleted while it was queued.

    Raises:
        dagster.Failure: The partition does not exist.
    """
    if (
        isinstance(catalogs, dg.DynamicPartitionsDefinition)
        and catalogs.name
        and not context.instance.has_dynamic_partition(catalogs.name, key)
    ):
        raise dg.Failure(
            f"Partition {key!r} of {context.asset_key.to_user_string()} no longer exists: it was "
            "deleted while this run was queued. Nothing was read, and its snapshot, if there is "
            "one, is kept. Add the partition again and materialize it; the catalog sensor adds it "
            "when the catalog is next indexed.",
            allow_retries=False,
        )


def _configured_search(config: dict[str, Any]) -> ProductSearch:
    try:
        return ProductSearch.model_validate(config)
    except ValidationError as error:
        raise dg.Failure(
            f"The search in the run configuration is invalid: {error}\nCorrect the run "
            "configuration and start the run again.",
            allow_retries=False,
        ) from None


def search_config(search: ProductSearch, *, catalogs: bool = True) -> dict[str, dg.Field]:
    """Build the run configuration of a search, with its values as defaults.

    Args:
        search: The defaults.
        catalogs: True if the catalogs can be configured.
    """
    types: dict[str, Any] = {
        "q": dg.Noneable(str),
        "facets": [{"name": str, "values": [str]}],
        "price_min": dg.Noneable(float),
        "price_max": dg.Noneable(float),
        "catalogs": [str],
        "page_size": int,
        "max_products": dg.Noneable(int),
    }
    values = search.model_dump(mode="json")
    return {
        name: dg.Field(
            types[name],
            default_value=values[name],
            is_required=False,
            description=field.description,
        )
        for name, field in ProductSearch.model_fields.items()
        if catalogs or name != "catalogs"
    }


def _list_granted(
    search: ProductSearch, octogen: OctogenResource
) -> list[MerchantCatalogSummary] | None:
    """List the granted catalogs, or return None if the service has no such list.

    Raises:
        dagster.Failure: A catalog of the search is not granted to the key.
    """
    try:
        granted = octogen.list_catalogs()
    except OctogenNotFoundError:
        return None
    keys = {summary.catalog for summary in granted}
    if missing := [key for key in search.catalogs if key not in keys]:
        raise dg.Failure(
            f"Catalog {missing[0]!r} is not granted to this key. Granted: "
            f"{', '.join(sorted(keys)) or 'none'}. Ask Octogen for access or correct the "
            "partition key or the search.",
            allow_retries=False,
        )
    return granted


def _expected_rows(
    search: ProductSearch, granted: list[MerchantCatalogSummary] | None
) -> int | None:
    """Return the number of products in whole catalogs; None if it is not known."""
    plain = search.model_copy(update={"catalogs": [], "page_size": 1})
    if granted is None or plain != ProductSearch(page_size=1):
        return None
    counts = {summary.catalog: summary.product_count for summary in granted}
    return sum(counts[key] for key in search.catalogs or counts)


def _add_partitions(
    context: dg.AssetExecutionContext,
    partitions_def: dg.DynamicPartitionsDefinition,
    summaries: list[MerchantCatalogSummary],
) -> None:
    if partitions_def.name is None:
        raise ValueError(
            "The partitions_def of the catalogs asset has no name, so catalogs cannot be added to "
            "it. Give the DynamicPartitionsDefinition a name."
        )
    known = set(context.instance.get_dynamic_partitions(partitions_def.name))
    keys = {catalog_partition_key(summary.catalog) for summary in summaries}
    if new := sorted(keys - known):
        context.instance.add_dynamic_partitions(partitions_def.name, new)
        context.log.info(f"Added {len(new)} catalog partitions: {', '.join(new)}")
