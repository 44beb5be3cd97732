"""A catalog through an asset and the IO manager, in a run of Dagster: pages are saved."""

from pathlib import Path

import dagster as dg

from benchmarks.source import API_KEY, PAGE_SIZE, Source
from octogen_dagster import (
    OctogenResource,
    ParquetSnapshotIOManager,
    ProductSearch,
    build_products_asset,
)


def read(source: Source, folder: Path, *, resume_within_hours: float = 6) -> Path:
    """Materialize the asset; with 0 hours its pages are not saved."""
    search = ProductSearch(catalogs=source.catalogs, page_size=PAGE_SIZE)
    resources = {
        "octogen": OctogenResource(
            api_key=API_KEY, base_url=source.base_url, concurrency=source.concurrency
        ),
        "io_manager": ParquetSnapshotIOManager(
            base_dir=str(folder), resume_within_hours=resume_within_hours
        ),
    }
    dg.materialize([build_products_asset("products", search)], resources=resources)
    return folder / "products.parquet"
