"""A scan whose catalog is read in several walks at once; the shop's host tells its brands."""

from pathlib import Path

from benchmarks.corpora import HOST
from benchmarks.source import API_KEY, PAGE_SIZE, Source
from octogen_dagster import ProductSearch, ShopCatalogs, scan_products


def read(source: Source, folder: Path, *, max_extra_pages_percent: float = 5) -> Path:
    """Stream the scan into a file."""
    scan = scan_products(
        ProductSearch(catalogs=source.catalogs, page_size=PAGE_SIZE),
        api_key=API_KEY,
        base_url=source.base_url,
        concurrency=source.concurrency,
        catalog_source=ShopCatalogs([HOST]),
        max_extra_pages_percent=max_extra_pages_percent,
    )
    folder.mkdir()
    path = folder / "products.parquet"
    scan.sink_parquet(path)
    return path
