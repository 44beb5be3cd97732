"""A read that tests kill. A fork server imports this module, so a run imports nothing itself."""

import dagster as dg

from octogen_dagster import OctogenResource, ParquetSnapshotIOManager, ProductSearch
from octogen_dagster.api import blocking  # noqa: F401

PAGE_SIZE = 5


def read(base_url: str, api_key: str, base_dir: str) -> None:
    """Read the catalog and publish its snapshot, with the IO manager alone."""
    octogen = OctogenResource(api_key=api_key, base_url=base_url)
    scan = octogen.scan(ProductSearch(catalogs=["acme"], page_size=PAGE_SIZE))
    context = dg.build_output_context(asset_key="products")
    ParquetSnapshotIOManager(base_dir=base_dir).handle_output(context, scan)


dg.DagsterInstance.ephemeral().dispose()
