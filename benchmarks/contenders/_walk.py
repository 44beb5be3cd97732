"""A search by OctogenClient with any HTTP client. The pages are not decoded."""

from dataclasses import dataclass

from benchmarks.cursor import next_cursor
from benchmarks.source import PAGE_SIZE, Source
from octogen_dagster.api.client import OctogenClient
from octogen_dagster.api.http import Response
from octogen_dagster.api.paging import PageTracker
from octogen_dagster.api.search_request import SearchRequest


@dataclass(frozen=True)
class _Page:
    next_cursor: str | None
    uuids: tuple[str, ...] = ()


async def walk(client: OctogenClient, source: Source) -> int:
    """Read all pages and return the number of products."""
    (catalog,) = source.catalogs
    progress = PageTracker(catalog)
    request = SearchRequest(catalog=catalog, limit=PAGE_SIZE)
    async for _ in client.iter_raw_pages(request, progress, _read_page):
        pass
    return progress.pages * PAGE_SIZE


def _read_page(response: Response, _subject: str) -> _Page:
    return _Page(next_cursor(response.content))
