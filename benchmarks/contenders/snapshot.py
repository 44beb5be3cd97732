"""A search to a published snapshot, with the steps of the IO manager."""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import polars as pl

from benchmarks.source import API_KEY, PAGE_SIZE, Source
from octogen_dagster import ProductScan, ProductSearch
from octogen_dagster.api.catalog_sources import CatalogService
from octogen_dagster.api.credentials import ApiKey
from octogen_dagster.frames.pages import PageStore
from octogen_dagster.frames.source import check_complete
from octogen_dagster.store import Store, write_parquet


@dataclass
class Place:
    """The place of a snapshot, without one that it replaces."""

    files: Store
    saves_pages: bool

    def page_store(self, clock: Callable[[], datetime]) -> PageStore | None:
        """A store beside the snapshot, if pages are saved."""
        return PageStore(self.files, ".pages", clock=clock) if self.saves_pages else None

    def latest(self) -> pl.LazyFrame | None:
        """None: there is no snapshot."""
        return None

    def latest_metadata(self) -> Mapping[str, str]:
        """Empty: there is no snapshot."""
        return {}

    def version(self) -> object:
        """None: there is no snapshot."""

    def log(self, line: str) -> None:
        """Print a line."""
        print(line)

    warn = log


def read(source: Source, folder: Path, *, save_pages: bool = True) -> Path:
    """Scan, write aside, verify and publish."""
    connection = CatalogService(
        api_key=ApiKey(API_KEY), base_url=source.base_url, concurrency=source.concurrency
    )
    scan = ProductScan(ProductSearch(catalogs=source.catalogs, page_size=PAGE_SIZE), connection)
    files, key = Store(str(folder)), "products.parquet"
    stop = threading.Event()
    with scan.reading(Place(files, save_pages), stop) as reading:
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
