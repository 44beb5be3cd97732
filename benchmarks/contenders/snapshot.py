"""A search to a published snapshot, with the steps of the IO manager."""

from pathlib import Path

from upath import UPath

from benchmarks.source import API_KEY, PAGE_SIZE, Source
from octogen_dagster import ProductScan, ProductSearch
from octogen_dagster.api.connection import Connection
from octogen_dagster.api.credentials import ApiKey
from octogen_dagster.frames.pages.store import PageStore
from octogen_dagster.snapshots.snapshot_files import SnapshotFile, write_parquet


def read(source: Source, folder: Path, *, save_pages: bool = True) -> Path:
    """Scan, write aside, verify and publish."""
    connection = Connection(
        api_key=ApiKey(API_KEY), base_url=source.base_url, concurrency=source.concurrency
    )
    search = ProductSearch(catalogs=source.catalogs, page_size=PAGE_SIZE)
    scan = ProductScan(search, connection)
    file = SnapshotFile(UPath(folder / "products.parquet"))
    if save_pages:
        scan.save_pages(PageStore(file.beside(".pages")), print)
    with file.unfinished() as unfinished:
        provenance = {"octogen.search": search.model_dump_json()}
        rows = write_parquet(scan.frame, unfinished, lambda: provenance)
        if not scan.statistics.complete or rows != scan.statistics.rows:
            raise RuntimeError(f"{rows} rows were written of {scan.statistics.rows} read")
        file.publish(unfinished)
    scan.published()
    return folder / "products.parquet"
