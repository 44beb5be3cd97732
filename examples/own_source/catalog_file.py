"""A custom catalog source: the catalog keys in a text file, one per line."""

import asyncio
from dataclasses import dataclass
from pathlib import Path

from octogen_dagster import CatalogSource, OctogenClient
from octogen_dagster.api.catalog_states import CatalogList, CatalogState


@dataclass(frozen=True)
class CatalogFile(CatalogSource):
    """The catalogs in a text file.

    Attributes:
        path: Path of a file with one catalog key per line.
    """

    path: str

    async def fetch(self, client: OctogenClient) -> CatalogList:
        text = await asyncio.to_thread(Path(self.path).read_text)
        return CatalogList([CatalogState(key) for key in text.split()])
