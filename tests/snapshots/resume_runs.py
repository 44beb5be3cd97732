"""Runs that a test kills. A fork server imports this module, so a run imports nothing itself."""

import dagster as dg

from octogen_dagster import (
    OctogenResource,
    ParquetSnapshotIOManager,
    ProductSearch,
    build_products_asset,
)
from octogen_dagster.api import blocking  # noqa: F401

PAGE_SIZE = 3
SEARCH = ProductSearch(catalogs=["northpeak"], page_size=PAGE_SIZE)


def by_dagster(base_url: str, api_key: str, base_dir: str) -> None:
    """Materialize the asset with Dagster."""
    dg.materialize(
        [build_products_asset("products", SEARCH)],
        resources={
            "octogen": OctogenResource(api_key=api_key, base_url=base_url),
            "io_manager": ParquetSnapshotIOManager(base_dir=base_dir),
        },
    )


def by_hand(base_url: str, api_key: str, base_dir: str) -> None:
    """Store the scan with the IO manager alone, which is faster than a run of Dagster."""
    octogen = OctogenResource(api_key=api_key, base_url=base_url)
    context = dg.build_output_context(asset_key="products")
    ParquetSnapshotIOManager(base_dir=base_dir).handle_output(context, octogen.scan(SEARCH))


dg.DagsterInstance.ephemeral().dispose()
