"""`scan_products(...).sink_parquet(...)`, without the IO manager: nothing is saved or verified."""

from pathlib import Path

from benchmarks.source import API_KEY, PAGE_SIZE, Source
from octogen_dagster import ProductSearch, scan_products


def read(source: Source, folder: Path) -> Path:
    """Stream the scan into a file."""
    search = ProductSearch(catalogs=source.catalogs, page_size=PAGE_SIZE)
    scan = scan_products(
        search, api_key=API_KEY, base_url=source.base_url, concurrency=source.concurrency
    )
    folder.mkdir()
    path = folder / "products.parquet"
    scan.sink_parquet(path, compression_level=1)  # that of the script, and of snapshots
    return path
