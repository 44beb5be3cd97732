"""Reads of one snapshot with saved pages, each as a run would make it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Literal

import polars as pl
import pytest
from upath import UPath

from octogen_dagster.api.catalog_sources import CatalogService
from octogen_dagster.api.catalog_states import CatalogState
from octogen_dagster.api.credentials import ApiKey
from octogen_dagster.api.retry import RetryPolicy
from octogen_dagster.api.search import ProductSearch
from octogen_dagster.errors import OctogenServerError
from octogen_dagster.frames.columns import PRODUCT_SCHEMA
from octogen_dagster.frames.io_source import Query
from octogen_dagster.frames.pages.resume import Saving
from octogen_dagster.frames.pages.saver import PageSaver
from octogen_dagster.frames.pages.store import RESUME_WITHIN, PageStore
from octogen_dagster.frames.reading import TimeWindow
from octogen_dagster.frames.scan import ProductScan, _Stored
from octogen_dagster.sandbox.faults import Fault
from octogen_dagster.sandbox.server import Sandbox

Generation = Literal["seed", "current"]

# 34 pages, of which a read that dies has read 32: two whole segments and a rest.
SEARCH = ProductSearch(catalogs=["northpeak"], page_size=2)
PRODUCTS = 68
WHOLE = [*range(1, 35)]
SAVED = 32


class Place:
    """A place without a snapshot, whose pages are saved in a store."""

    def __init__(self, store: PageStore, log: Callable[[str], None]) -> None:
        self.store = store
        self.log = self.warn = log

    def page_store(self, _clock: Callable[[], datetime]) -> PageStore:
        return self.store

    def latest(self) -> pl.LazyFrame | None:
        return None

    def latest_provenance(self) -> dict[str, str]:
        return {}


class Execution:
    """One execution of a scan whose rows are stored, frame by frame."""

    def __init__(self, scan: ProductScan, store: PageStore, log: Callable[[str], None]) -> None:
        self.stored = _Stored(Place(store, log), store)
        query = Query(set(PRODUCT_SCHEMA), None, None)
        self.batches = scan._frames(query, threading.Event(), self.stored)

    @property
    def saving(self) -> Saving:
        assert self.stored.saving
        return self.stored.saving

    @property
    def saver(self) -> PageSaver:
        """That of the first walk."""
        saved = self.saving.walks[0].saved
        assert saved
        return saved.saver


class Reads:
    """Reads of one snapshot.

    Args:
        sandbox: The service.
        folder: The folder of the saved pages.
        generation: The generation of the service.
    """

    def __init__(self, sandbox: Sandbox, folder: Path, generation: Generation = "seed") -> None:
        self.sandbox = sandbox
        self.generation = generation
        self.concurrency = 8
        self.folder = folder
        self.notes: list[str] = []
        self.ahead = timedelta(0)  # of the clock
        self._last: ProductScan | None = None

    @property
    def last(self) -> ProductScan:
        assert self._last
        return self._last

    def store(self, *, resume_within: timedelta = RESUME_WITHIN) -> PageStore:
        return PageStore(UPath(self.folder), resume_within=resume_within, clock=self.clock)

    def clock(self) -> datetime:
        return datetime.now(timezone.utc) + self.ahead

    def scan(
        self,
        search: ProductSearch = SEARCH,
        *,
        window: TimeWindow | None = None,
        list_catalogs: Callable[[], list[CatalogState]] | None = None,
    ) -> ProductScan:
        connection = CatalogService(
            api_key=ApiKey(self.sandbox.api_key),
            base_url=self.sandbox.base_url,
            concurrency=self.concurrency,
            retry=RetryPolicy(attempts=1),
        )
        return ProductScan(search, connection, list_catalogs=list_catalogs, window=window)

    def read(
        self,
        search: ProductSearch = SEARCH,
        *,
        window: TimeWindow | None = None,
        publish: bool = True,
        resume_within: timedelta = RESUME_WITHIN,
    ) -> pl.DataFrame:
        """A whole read.

        Args:
            search: What to read.
            window: The time that the snapshot is of.
            publish: False for a run that dies before it publishes the snapshot.
            resume_within: As for `PageStore`.
        """
        scan = self._last = self.scan(search, window=window)
        self.notes = []
        store = self.store(resume_within=resume_within)
        execution = Execution(scan, store, self.notes.append)
        frame = pl.concat(execution.batches)
        for walk in execution.saving.walks:
            if walk.saved and not publish:
                walk.saved.saver.flush()
        if publish:
            execution.stored.remove_pages()
        return frame

    def interrupted(self, page: int = SAVED + 1, search: ProductSearch = SEARCH) -> None:
        """A read that dies at a page."""
        self.sandbox.inject(Fault("status", 500, page=page, times=1))
        with pytest.raises(OctogenServerError):
            self.read(search)

    def pages_requested(self, work: Callable[[], object]) -> list[int]:
        before = len(self.sandbox.requests)
        work()
        return [
            request.page
            for request in self.sandbox.requests[before:]
            if request.path == "/products/search" and request.status == 200
        ]

    def rest(self, saved: int = SAVED) -> list[int]:
        """The pages that a resumed read requests.

        Where the service has no stamp of a catalog, two saved pages are compared.
        """
        compared = [1, saved] if self.generation == "current" else []
        return [saved + 1, *compared, *range(saved + 2, len(WHOLE) + 1)]

    def segments(self) -> list[Path]:
        """The segments, by read and then in order."""
        return sorted(self.folder.glob("*/*.pages"))

    def read_folders(self) -> list[Path]:
        return sorted(path.parent for path in self.folder.glob("*/read.json"))
