"""The floor of an asynchronous program: `bare_httpx` with httpx.AsyncClient."""

import asyncio
from pathlib import Path

import httpx

from benchmarks.cursor import next_cursor
from benchmarks.source import API_KEY, PAGE_SIZE, Source


def read(source: Source, _folder: Path) -> int:
    """Read one page after the other."""
    return asyncio.run(_read(source))


async def _read(source: Source) -> int:
    body, pages = source.search(), 0
    url = f"{source.base_url}/products/search"
    async with httpx.AsyncClient(headers={"Authorization": f"Bearer {API_KEY}"}) as client:
        while True:
            response = await client.post(url, json=body)
            content = response.raise_for_status().content
            pages += 1
            body["cursor"] = next_cursor(content)
            if body["cursor"] is None:
                return pages * PAGE_SIZE
