"""build_catalogs_asset: snapshot the list of catalogs."""

from collections.abc import Iterable, Mapping
from typing import Any

import dagster as dg
import polars as pl

from octogen_dagster.api.catalog_sources import CatalogService
from octogen_dagster.api.catalog_states import CatalogState
from octogen_dagster.assets.definition import (
    RESOURCE,
    Metadata,
    asset_arguments_of,
    asset_key,
)
from octogen_dagster.frames.catalogs import CATALOGS_KIND, catalogs_frame
from octogen_dagster.printable import count
from octogen_dagster.products.resource import require_catalog_source
from octogen_dagster.snapshots.asset_decorator import SnapshotRun, snapshot_asset
from octogen_dagster.snapshots.partitions import ADDS_PARTITIONS, keys_by_catalog

_ALL_SHOPS_LISTED = "all_shops_listed"
_MAX_NAMED_SHOPS = 20


def build_catalogs_asset(
    name: str | dg.AssetSpec = "octogen_catalogs",
    *,
    partitions_def: dg.DynamicPartitionsDefinition | None = None,
    resource_key: str = RESOURCE,
    **asset_arguments: Any,
) -> dg.AssetsDefinition:
    """Build an asset that lists the catalogs in the resource's `catalog_source`.

    The columns are catalog, display_name, host, source_base_url, product_count, last_indexed_at and
    computed_at (both UTC). Values that the source does not provide are null. To show the asset
    upstream of a products asset, pass `deps=[catalogs]` to `build_products_asset`.

    The `all_shops_listed` check fails if the table has no catalogs for a shop in `ShopCatalogs`.
    Either Octogen does not cover the shop, or the request failed. The metadata entry
    `octogen/shops_left_out` lists the missing shops with the reasons.

    Args:
        name: The asset's name or `dagster.AssetSpec`.
        partitions_def: Dynamic partitions. Each run adds partitions for new catalogs. Pass the
            products asset's partitions. Catalogs whose key is not a valid partition key appear
            only in the table.
        resource_key: The `OctogenResource`'s key. Change it to use more than one resource.
        asset_arguments: Any other argument for `@dagster.asset`.
    """
    adds_to = {ADDS_PARTITIONS: str(partitions_def.name)} if partitions_def else {}
    given = asset_arguments_of(name, asset_arguments)
    check = dg.AssetCheckSpec(
        _ALL_SHOPS_LISTED,
        asset=asset_key(given),
        description="The table contains catalogs for every shop in the catalog source.",
    )

    @snapshot_asset(
        {
            "description": (
                "Catalogs in the Octogen resource's catalog source. Each row is a catalog with its "
                "key, name, shop, product count and last index time."
                + (" Each run adds partitions for new catalogs." if adds_to else "")
            ),
            "metadata": adds_to,
            "required_resource_keys": {resource_key},
            "check_specs": [check],
        },
        given,
        kind=CATALOGS_KIND,
        resource_key=resource_key,
    )
    def catalogs(
        run: SnapshotRun[CatalogService], _partition: str | None
    ) -> dg.MaterializeResult[pl.DataFrame]:
        listed = run.service.fetch_catalogs()
        for line in listed.warnings:
            run.context.log.warning(line)
        if partitions_def is not None:
            _add_partitions(run.context, partitions_def, listed.catalogs)
        frame = catalogs_frame(listed.catalogs)
        metadata = _metrics(frame)
        if listed.shops_left_out:
            metadata["octogen/shops_left_out"] = dg.MetadataValue.json(dict(listed.shops_left_out))
        return dg.MaterializeResult(
            value=frame,
            check_results=[_all_shops_listed(listed.shops_left_out)],
            metadata=metadata,
        )

    require_catalog_source(catalogs, resource_key)
    return catalogs


def _all_shops_listed(left_out: Mapping[str, str]) -> dg.AssetCheckResult:
    """Return the check result, with the reason for each missing shop."""
    shops = "1 shop has" if len(left_out) == 1 else f"{len(left_out)} shops have"
    reasons = [*left_out.values()][:_MAX_NAMED_SHOPS]
    if more := len(left_out) - len(reasons):
        reasons.append(f"And {more} more.")
    return dg.AssetCheckResult(
        check_name=_ALL_SHOPS_LISTED,
        passed=not left_out,
        description=f"{shops} no catalogs in the table. {' '.join(reasons)}"
        if left_out
        else "The table contains catalogs for every shop in the catalog source.",
    )


def _metrics(frame: pl.DataFrame) -> Metadata:
    """Return the number of catalogs and, if all counts are known, the number of products."""
    metrics: Metadata = {"octogen/catalogs": len(frame)}
    if not frame["product_count"].has_nulls():
        metrics["octogen/products"] = int(frame["product_count"].sum())
    return metrics


def _add_partitions(
    context: dg.AssetExecutionContext,
    partitions_def: dg.DynamicPartitionsDefinition,
    catalogs: Iterable[CatalogState],
) -> None:
    if partitions_def.name is None:
        raise ValueError(
            "The catalogs asset's partitions_def has no name, so catalogs cannot be added to it. "
            "Give the DynamicPartitionsDefinition a name."
        )
    keys, skipped = keys_by_catalog(state.catalog for state in catalogs)
    for line in skipped:
        context.log.warning(line)
    known = set(context.instance.get_dynamic_partitions(partitions_def.name))
    if new := sorted(set(keys.values()) - known):
        context.instance.add_dynamic_partitions(partitions_def.name, new)
        context.log.info(f"Added {count(len(new), 'catalog partition')}: {', '.join(new)}")
