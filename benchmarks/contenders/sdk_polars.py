"""octogen-ai-sdk at its best: its transport, and Polars in place of its models."""

import asyncio
from pathlib import Path
from typing import Any

import polars as pl
from octogen_ai_sdk import OctogenClient

from benchmarks.cursor import next_cursor
from benchmarks.source import API_KEY, Source

_PAGES_PER_BLOCK = 20


def read(source: Source, folder: Path) -> Path:
    """Decode blocks of pages with the types that Polars infers from the first, then write."""
    frames = asyncio.run(_frames(source))
    folder.mkdir()
    path = folder / "products.parquet"
    pl.concat(frames).write_parquet(path, compression="zstd")
    return path


async def _frames(source: Source) -> list[pl.DataFrame]:
    frames, block, body = list[pl.DataFrame](), list[bytes](), source.search()
    dtype: Any = None
    async with OctogenClient(api_key=API_KEY, base_url=source.base_url) as client:
        while True:
            page = (await client._request("searchProducts", json=body)).content
            block.append(page)
            body["cursor"] = next_cursor(page)
            if len(block) == _PAGES_PER_BLOCK or body["cursor"] is None:
                if dtype is None:
                    pages = pl.read_json(b"[" + b",".join(block) + b"]", infer_schema_length=None)
                    dtype = pl.Struct({"items": pages.schema["items"]})
                texts = pl.Series(block, dtype=pl.Binary).cast(pl.String)
                items = texts.str.json_decode(dtype).struct.field("items")
                frames.append(items.explode().struct.unnest())
                block.clear()
            if body["cursor"] is None:
                return frames
