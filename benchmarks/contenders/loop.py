"""The loop that one writes first: httpx, a list of rows, a DataFrame, a Parquet file."""

from pathlib import Path
from typing import Any

import httpx
import polars as pl

from benchmarks.source import API_KEY, Source


def read(source: Source, folder: Path) -> Path:
    """Read all pages into one list of rows, then write the file."""
    rows, body = list[dict[str, Any]](), source.search()
    headers = {"Authorization": f"Bearer {API_KEY}"}
    with httpx.Client(base_url=source.base_url, headers=headers) as client:
        while True:
            page = client.post("/products/search", json=body).raise_for_status().json()
            rows += page["items"]
            body["cursor"] = page.get("nextCursor")
            if not body["cursor"]:
                break
    folder.mkdir()
    path = folder / "products.parquet"
    pl.DataFrame(rows, infer_schema_length=None).write_parquet(path)
    return path
