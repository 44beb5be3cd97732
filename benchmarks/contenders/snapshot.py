"""A search to a published snapshot, with the steps of the IO manager."""

import contextlib
from pathlib import Path

from upath import UPath

from benchmarks.source import API_KEY, PAGE_SIZE, Source
from octogen_dagster import ProductScan, ProductSearch
from octogen_dagster.api.connection import Connection
from octogen_dagster.api.credentials import ApiKey
from octogen_dagster.frames.pages.store import PageStore
from octogen_dagster.frames.snapshot_source import check_complete
from octogen_dagster.snapshots.snapshot_files import SnapshotFile, write_parquet


def read(source: Source, folder: Path, *, save_pages: bool = True) -> Path:
    """Scan, write aside, verify and publish."""
    connection = Connection(
        api_key=ApiKey(API_KEY), base_url=source.base_url, concurrency=source.concurrency
    )
    search = ProductSearch(catalogs=source.catalogs, page_size=PAGE_SIZE)
    scan = ProductScan(search, connection)
    file = SnapshotFile(UPath(folder / "products.parquet"))
    store = PageStore(file.beside(".pages"))
    with scan.use_page_store(store, print) if save_pages else contextlib.nullcontext():
        with file.unfinished() as unfinished:
            rows = write_parquet(scan.frame, unfinished, scan.provenance, scan.stop)
            check_complete(scan, rows, file.uri)
            file.publish(unfinished)
        scan.remove_saved_pages()
    return folder / "products.parquet"
