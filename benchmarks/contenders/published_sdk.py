"""octogen-ai-sdk in a loop: models to rows to a DataFrame to a Parquet file."""

import asyncio
from pathlib import Path
from typing import Any

import polars as pl
from octogen_ai_sdk import OctogenClient

from benchmarks.source import API_KEY, PAGE_SIZE, Source


def read(source: Source, folder: Path) -> Path:
    """Read all pages into one list of rows, then write the file."""
    rows = asyncio.run(_rows(source))
    folder.mkdir()
    path = folder / "products.parquet"
    pl.DataFrame(rows).write_parquet(path)
    return path


async def _rows(source: Source) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    cursor = None
    async with OctogenClient(api_key=API_KEY, base_url=source.base_url) as client:
        while True:
            page = await client.search_products(
                catalogs=source.catalogs, limit=PAGE_SIZE, cursor=cursor
            )
            rows += [item.model_dump() for item in page.items]
            cursor = page.next_cursor
            if cursor is None:
                return rows
