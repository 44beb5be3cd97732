"""The factory of the catalogs asset."""

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
    """Build an asset: the table of the catalogs of the resource's source.

    The columns are catalog, display_name, host, source_base_url, product_count, last_indexed_at and
    computed_at (both UTC). What the source does not tell is null. To show the asset upstream of
    what it adds partitions to, pass it to `build_products_asset` as `deps=[catalogs]`.

    The asset has the check `all_shops_listed`, which fails if a shop of `ShopCatalogs` has no
    catalogs in the table, since Octogen does not cover it or since it could not be asked.
    `octogen/shops_left_out` in the metadata names these shops, each with the reason.

    Args:
        name: The asset's name or `dagster.AssetSpec`.
        partitions_def: Dynamic partitions, to which a run adds each new catalog. Pass those of
            the products asset. A catalog whose key cannot be a partition is only in the table.
        resource_key: The key of the `OctogenResource`; give another one to read with two of them.
        asset_arguments: Any other argument of `@dagster.asset`.
    """
    adds_to = {ADDS_PARTITIONS: str(partitions_def.name)} if partitions_def else {}
    given = asset_arguments_of(name, asset_arguments)
    check = dg.AssetCheckSpec(
        _ALL_SHOPS_LISTED,
        asset=asset_key(given),
        description="Every shop of the source has its catalogs in the table.",
    )

    @snapshot_asset(
        {
            "description": (
                "The catalogs of the Octogen resource's source: key, name, shop, number of "
                "products and when it was last indexed. A row is a catalog."
                + (" A run adds a partition for each new one." if adds_to else "")
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
    """The result of the check that no shop is left out, with the reason for each."""
    shops = f"{len(left_out)} shops are" if len(left_out) > 1 else "1 shop is"
    their = "their" if len(left_out) > 1 else "its"
    reasons = [*left_out.values()][:_MAX_NAMED_SHOPS]
    if more := len(left_out) - len(reasons):
        reasons.append(f"And {more} more.")
    return dg.AssetCheckResult(
        check_name=_ALL_SHOPS_LISTED,
        passed=not left_out,
        description=f"{shops} left out, with {their} catalogs. {' '.join(reasons)}"
        if left_out
        else "Every shop of the source has its catalogs in the table.",
    )


def _metrics(frame: pl.DataFrame) -> Metadata:
    """Return the number of catalogs and, where all counts are known, of their products."""
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
            "The partitions_def of the catalogs asset has no name, so catalogs cannot be added to "
            "it. Give the DynamicPartitionsDefinition a name."
        )
    keys, skipped = keys_by_catalog(state.catalog for state in catalogs)
    for line in skipped:
        context.log.warning(line)
    known = set(context.instance.get_dynamic_partitions(partitions_def.name))
    if new := sorted(set(keys.values()) - known):
        context.instance.add_dynamic_partitions(partitions_def.name, new)
        context.log.info(f"Added {count(len(new), 'catalog partition')}: {', '.join(new)}")
