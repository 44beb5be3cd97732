"""Lookups of the details of all products, alone in their process.

`python -m benchmarks.lookups SOURCE` prints the wall and the CPU seconds of a details scan of the
products of a catalog, and the number of products that it found.
"""

import json
import sys
import threading
import time
from typing import Any

import polars as pl

from benchmarks.source import API_KEY, PAGE_SIZE, Source
from octogen_dagster import ProductSearch, scan_products
from octogen_dagster.api.catalog_sources import CatalogService
from octogen_dagster.api.credentials import ApiKey
from octogen_dagster.details.scan import DetailScan
from octogen_dagster.frames.source import collected


def _say_nothing(_line: str) -> None: ...


def measure(source: Source) -> dict[str, Any]:
    """Read the products, look up those of a page to warm up, then all."""
    search = ProductSearch(catalogs=source.catalogs, page_size=PAGE_SIZE)
    products = scan_products(search, api_key=API_KEY, base_url=source.base_url).collect()
    connection = CatalogService(
        api_key=ApiKey(API_KEY), base_url=source.base_url, concurrency=source.concurrency
    )

    def look_up(some: pl.DataFrame) -> pl.DataFrame:
        source = DetailScan(some.lazy(), connection)
        return collected(source, "the details", _say_nothing, _say_nothing, threading.Event())[0]

    look_up(products.head(PAGE_SIZE))
    cpu, started_at = time.process_time(), time.perf_counter()
    details = look_up(products)
    seconds, cpu = time.perf_counter() - started_at, time.process_time() - cpu
    found = details.filter(status="found", product_url=pl.col("requested_url"))
    return {"seconds": seconds, "cpu_seconds": cpu, "found": found["uuid"].n_unique()}


if __name__ == "__main__":
    print(json.dumps(measure(Source.from_json(sys.argv[1]))))
