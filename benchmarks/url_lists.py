"""Addresses that are brought into a new URL list, each time alone in its process.

`python -m benchmarks.url_lists WHAT BASE_URL ADDRESSES` measures one. A small list comes first, so
that imports are not measured.
"""

from __future__ import annotations

import json
import logging
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import dagster as dg
import httpx
import polars as pl

from benchmarks.history import timed
from benchmarks.source import API_KEY
from octogen_dagster import OctogenResource, ParquetSnapshotIOManager, build_url_list_asset

_PER_REQUEST = 1_000
_QUIET = {"loggers": {"console": {"config": {"log_level": "ERROR"}}}}


def asset(base_url: str, urls: Sequence[str]) -> None:
    """Bring them in by an asset, in a run of Dagster that also stores what became of each."""
    table = pl.DataFrame({"sku": urls, "url": urls})

    @dg.asset(io_manager_key="own_io_manager")
    def articles() -> pl.DataFrame:
        return table

    url_list = build_url_list_asset("competitors", articles)
    with tempfile.TemporaryDirectory() as folder:
        resources = {
            "own_io_manager": dg.mem_io_manager,
            "io_manager": ParquetSnapshotIOManager(base_dir=folder),
            "octogen": OctogenResource(api_key=API_KEY, base_url=base_url),
        }
        dg.materialize([articles, url_list], resources=resources, run_config=_QUIET)
        stored = pl.scan_parquet(Path(folder, "competitors.parquet"))
        _check(stored.select(pl.col("normalized_url").n_unique()).collect().item(), urls)


def bare(base_url: str, urls: Sequence[str]) -> None:
    """Post the same requests, and count what was accepted."""
    headers = {"Authorization": f"Bearer {API_KEY}"}
    with httpx.Client(base_url=base_url, headers=headers) as client:
        made = client.post("/coverage/url-lists", json={"name": "competitors"}).json()
        accepted = 0
        for first in range(0, len(urls), _PER_REQUEST):
            some = urls[first : first + _PER_REQUEST]
            path = f"/coverage/url-lists/{made['urlListId']}/urls"
            accepted += len(client.post(path, json={"urls": some}).json()["accepted"])
    _check(accepted, urls)


def _check(accepted: int, urls: Sequence[str]) -> None:
    if accepted != len(urls):
        raise RuntimeError(f"{accepted} addresses were accepted of {len(urls)}")


if __name__ == "__main__":
    logging.disable(logging.WARNING)
    what, base_url, addresses = sys.argv[1:]
    work = {"asset": asset, "bare": bare}[what]
    urls = [f"https://shop.example/products/{number}-a-dress" for number in range(int(addresses))]
    work(base_url, urls[:_PER_REQUEST])
    print("\n" + json.dumps(timed(lambda: work(base_url, urls))))
