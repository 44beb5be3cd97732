"""The floor: httpx downloads the pages and discards them."""

from pathlib import Path

import httpx

from benchmarks.cursor import next_cursor
from benchmarks.source import API_KEY, PAGE_SIZE, Source


def read(source: Source, _folder: Path) -> int:
    """Read one page after the other."""
    body, pages = source.search(), 0
    url = f"{source.base_url}/products/search"
    with httpx.Client(headers={"Authorization": f"Bearer {API_KEY}"}) as client:
        while True:
            content = client.post(url, json=body).raise_for_status().content
            pages += 1
            body["cursor"] = next_cursor(content)
            if body["cursor"] is None:
                return pages * PAGE_SIZE
