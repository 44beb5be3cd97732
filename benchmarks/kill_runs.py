"""Runs that `kills` kills. A fork server imports this module, so a run imports nothing itself."""

from __future__ import annotations

import logging
from multiprocessing.synchronize import Event

import dagster as dg
import httpx  # noqa: F401

from octogen_dagster import OctogenResource, ParquetSnapshotIOManager, ProductSearch
from octogen_dagster.api import blocking  # noqa: F401

PAGE_SIZE = 5


def publish(begun: Event, base_url: str, api_key: str, base_dir: str) -> None:
    """Read a catalog, and publish its snapshot."""
    logging.disable(logging.WARNING)
    begun.set()
    octogen = OctogenResource(api_key=api_key, base_url=base_url)
    scan = octogen.scan(ProductSearch(catalogs=["northpeak"], page_size=PAGE_SIZE))
    context = dg.build_output_context(asset_key="products")
    ParquetSnapshotIOManager(base_dir=base_dir).handle_output(context, scan)


dg.DagsterInstance.ephemeral().dispose()
