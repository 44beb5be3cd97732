"""OctogenClient over BlockingTransport, as bulk reads use it."""

import asyncio
from pathlib import Path

from benchmarks.contenders._walk import walk
from benchmarks.source import API_KEY, Source
from octogen_dagster.api.connection import Connection
from octogen_dagster.api.credentials import ApiKey


def read(source: Source, _folder: Path) -> int:
    """Read one page after the other."""
    return asyncio.run(_read(source))


async def _read(source: Source) -> int:
    connection = Connection(api_key=ApiKey(API_KEY), base_url=source.base_url)
    async with connection.blocking_client(connection.rate_limiter()) as client:
        return await walk(client, source)
