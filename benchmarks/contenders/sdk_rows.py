"""octogen-ai-sdk without its models: its transport and JSON, `pl.DataFrame`, `write_parquet`."""

import asyncio
from pathlib import Path
from typing import Any

import polars as pl
from octogen_ai_sdk import OctogenClient

from benchmarks.source import API_KEY, Source


def read(source: Source, folder: Path) -> Path:
    """Read all pages into one list of rows, then write the file."""
    rows = asyncio.run(_rows(source))
    folder.mkdir()
    path = folder / "products.parquet"
    pl.DataFrame(rows).write_parquet(path)
    return path


async def _rows(source: Source) -> list[dict[str, Any]]:
    rows, body = list[dict[str, Any]](), source.search()
    async with OctogenClient(api_key=API_KEY, base_url=source.base_url) as client:
        while True:
            page = await client._json("searchProducts", json=body)
            rows += page["items"]
            body["cursor"] = page.get("nextCursor")
            if body["cursor"] is None:
                return rows
