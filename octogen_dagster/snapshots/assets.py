"""Asset factories: the catalogs table and product snapshots."""

import functools
from typing import Any

import dagster as dg
import polars as pl
from pydantic import ValidationError

from octogen_dagster.api.models import MerchantCatalogSummary
from octogen_dagster.asset_defaults import octogen_asset
from octogen_dagster.errors import OctogenNotFoundError
from octogen_dagster.frames.plan import is_now
from octogen_dagster.frames.scan import ProductScan, ScanStatistics
from octogen_dagster.frames.search import ProductSearch
from octogen_dagster.snapshots.metadata import progress
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


def build_catalogs_asset(
    name: str = "octogen_catalogs",
    *,
    partitions_def: dg.DynamicPartitionsDefinition | None = None,
    **asset_arguments: Any,
) -> dg.AssetsDefinition:
    """An asset: the table of the catalogs granted to the key.

    Columns: catalog, display_name, source_base_url, product_count, last_indexed_at (UTC).

    Args:
        name: The asset's name.
        partitions_def: Dynamic partitions to which each catalog that is not there yet is added;
            give the ones of the products asset.
        asset_arguments: Any other argument of `@dagster.asset`.
    """

    @octogen_asset(
        {"name": name, "description": "The catalogs this organisation may read."}, asset_arguments
    )
    def catalogs(context: dg.AssetExecutionContext, octogen: OctogenResource) -> pl.DataFrame:
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
    **asset_arguments: Any,
) -> dg.AssetsDefinition:
    """An asset: the products of a search, or of a whole catalog for each partition.

    The search is the default of the run configuration, so it can be changed in the launchpad for
    one run. Columns as in `octogen_dagster.PRODUCT_SCHEMA`.

    Args:
        name: The asset's name.
        search: What to read; by default everything.
        partitions_def: Partitions whose keys are catalogs (`catalog_partition_key`), in each of
            which the search is made; or times (`snapshot_days`), or both (`catalog_days`). A time
            that is over is rebuilt from landed pages, or refused: the service knows only the
            present.
        asset_arguments: Any other argument of `@dagster.asset`, such as `pool`, `kinds`,
            `group_name`, `owners`, `tags`, `description`, `retry_policy`.

    Raises:
        ValueError: The search names catalogs and the partitions are catalogs, or the partitions
            are neither catalogs nor times that include the present.
    """
    search = search or ProductSearch()
    partitions = SnapshotPartitions(partitions_def)
    if partitions.catalogs is not None and search.catalogs:
        raise ValueError(
            f"Asset {name!r}: each partition is a catalog, so the search must not name catalogs."
        )
    if partitions.times is not None and partitions.times.end_offset < 1:
        raise ValueError(
            f"Asset {name!r}: its partitions of time need end_offset=1, so that the present is "
            "among them: the service knows nothing else. See octogen_dagster.snapshot_days and "
            "catalog_days."
        )

    @octogen_asset(
        {
            "name": name,
            "partitions_def": partitions_def,
            "config_schema": search_config(search, catalogs=partitions.catalogs is None),
            "description": "Products of each catalog."
            if partitions.catalogs
            else "Products found.",
        },
        asset_arguments,
    )
    def products(context: dg.AssetExecutionContext, octogen: OctogenResource) -> ProductScan:
        search = _configured_search(context)
        window = None
        if partitions_def is not None:
            window = partitions.window(context.partition_key)
            if key := partitions.catalog_key(context.partition_key):
                _require_partition(context, partitions.catalogs, key)
                search = search.model_copy(update={"catalogs": [catalog_of(key)]})
        granted = functools.cache(lambda: _granted(search, octogen))
        if window is None or is_now(window):
            granted()  # a catalog that is not granted fails early
        subject = f"Catalog {search.catalogs[0]!r}" if len(search.catalogs) == 1 else "The search"

        def report(statistics: ScanStatistics) -> None:
            expected = None if statistics.rebuilt else _expected(search, granted())
            context.log.info(progress(subject, statistics, expected))

        return octogen.scan(search, report, granted=granted, window=window)

    return products


def _require_partition(
    context: dg.AssetExecutionContext, catalogs: dg.PartitionsDefinition[Any] | None, key: str
) -> None:
    """Fail a run whose partition was deleted while it was queued, before anything is read."""
    if (
        isinstance(catalogs, dg.DynamicPartitionsDefinition)
        and catalogs.name
        and not context.instance.has_dynamic_partition(catalogs.name, key)
    ):
        raise dg.Failure(
            f"Partition {key!r} of {context.asset_key.to_user_string()} is not there any more: it "
            "was deleted while this run was queued. Nothing was read, and a snapshot that was "
            "there is kept. Add the partition again and materialize it; the catalog sensor adds "
            "it when the catalog is next indexed.",
            allow_retries=False,
        )


def _configured_search(context: dg.AssetExecutionContext) -> ProductSearch:
    try:
        return ProductSearch.model_validate(context.op_execution_context.op_config)
    except ValidationError as error:
        raise dg.Failure(
            f"The search in the run configuration is wrong. {error}", allow_retries=False
        ) from None


def search_config(search: ProductSearch, *, catalogs: bool = True) -> dict[str, dg.Field]:
    """The run configuration of a search, with its values as defaults.

    Args:
        search: The defaults.
        catalogs: Whether the catalogs can be configured.
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


def _granted(
    search: ProductSearch, octogen: OctogenResource
) -> list[MerchantCatalogSummary] | None:
    """The granted catalogs; None from the current generation of the service, which lists none.

    Raises:
        dagster.Failure: A catalog is not granted to the key.
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


def _expected(search: ProductSearch, granted: list[MerchantCatalogSummary] | None) -> int | None:
    """The products a read of whole catalogs will bring, if the service says how many there are."""
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
        raise ValueError("partitions_def must have a name, so that catalogs can be added to it.")
    known = set(context.instance.get_dynamic_partitions(partitions_def.name))
    keys = {catalog_partition_key(summary.catalog) for summary in summaries}
    if new := sorted(keys - known):
        context.instance.add_dynamic_partitions(partitions_def.name, new)
        context.log.info(f"Added {len(new)} catalog partitions: {', '.join(new)}")
