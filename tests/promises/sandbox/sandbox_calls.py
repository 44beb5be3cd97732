"""Requests to a sandbox over HTTP."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx

from octogen_dagster.sandbox.server import Sandbox


def connect(sandbox: Sandbox, api_key: str | None = None) -> httpx.Client:
    """A client with the sandbox's own key or another one."""
    headers = {"Authorization": f"Bearer {api_key or sandbox.api_key}"}
    return httpx.Client(base_url=sandbox.base_url, headers=headers, timeout=30)


def search(client: httpx.Client, **body: Any) -> httpx.Response:
    return client.post("/products/search", json=body)


def iter_pages(client: httpx.Client, **body: Any) -> Iterator[list[dict[str, Any]]]:
    """The items of every page of a search, page by page."""
    cursor = None
    while True:
        page = search(client, **body, **({"cursor": cursor} if cursor else {})).json()
        yield page["items"]
        cursor = page.get("nextCursor")
        if cursor is None:
            return


def all_items(client: httpx.Client, **body: Any) -> list[dict[str, Any]]:
    return [item for page in iter_pages(client, limit=100, **body) for item in page]


def look_up(client: httpx.Client, url: str, **body: Any) -> httpx.Response:
    return client.post("/products/lookup", json={"url": url, **body})


def uuids(items: list[dict[str, Any]]) -> list[str]:
    return [item["uuid"] for item in items]
