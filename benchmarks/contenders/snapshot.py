"""A search to a published snapshot, with the steps of the IO manager.

`python -m benchmarks.contenders.snapshot SOURCE FOLDER` does nothing else.
"""

import sys
import threading
from datetime import timedelta
from pathlib import Path

from benchmarks.source import API_KEY, PAGE_SIZE, Source
from octogen_dagster import ProductScan, ProductSearch
from octogen_dagster.api.catalog_sources import CatalogService
from octogen_dagster.api.credentials import ApiKey
from octogen_dagster.frames.source import SnapshotTarget, check_complete
from octogen_dagster.storage.store import Store, write_parquet


def read(source: Source, folder: Path) -> Path:
    """Scan, write aside, verify and publish."""
    connection = CatalogService(
        api_key=ApiKey(API_KEY), base_url=source.base_url, concurrency=source.concurrency
    )
    scan = ProductScan(ProductSearch(catalogs=source.catalogs, page_size=PAGE_SIZE), connection)
    files, key = Store(str(folder)), "products.parquet"
    stop = threading.Event()
    target = SnapshotTarget(
        print,
        print,
        files,
        saved_pages=".pages",
        resume_within=timedelta(hours=6),
    )
    with scan.reading(target, stop) as reading:
        with files.unfinished(key) as unfinished:
            rows = write_parquet(
                reading.frame,
                unfinished,
                lambda: dict(reading.outcome().file_metadata),
                stop,
            )
            check_complete(reading.outcome(), rows, files.uri(key))
            files.publish(unfinished, key)
        reading.published()
    return folder / key


if __name__ == "__main__":
    read(Source.from_json(sys.argv[1]), Path(sys.argv[2]))
