"""Plans a read with a page store: it is resumed or begun anew."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from octogen_dagster.errors import OctogenSnapshotError
from octogen_dagster.frames.pages.records import ReadRecord, SavedCatalog
from octogen_dagster.frames.pages.saved_pages import (
    NotContinuedError,
    request_next_page,
    verified_pages,
)
from octogen_dagster.frames.pages.saved_walk import SavedWalk
from octogen_dagster.frames.pages.saver import PageSaver
from octogen_dagster.frames.pages.storage import RemovedError
from octogen_dagster.frames.plan import Plan, Walk, in_reading_order

if TYPE_CHECKING:
    from octogen_dagster.api.blocking import BlockingClient
    from octogen_dagster.api.catalog_sources import CatalogService
    from octogen_dagster.api.search import ProductSearch
    from octogen_dagster.frames.decode import ProductPage
    from octogen_dagster.frames.pages.saved_pages import SavedPages
    from octogen_dagster.frames.pages.saved_read import SavedRead
    from octogen_dagster.frames.pages.store import PageStore

    Log = Callable[[str], None]


@dataclass(frozen=True)
class Saving:
    """The saved pages of a read.

    Attributes:
        store: The page store of the snapshot.
        read: The folder of the read.
        continued: Names of the saved reads whose pages it takes over.
        superseded: Names of all saved reads of the same search.
        walks: The walks that are saved.
    """

    store: PageStore
    read: SavedRead
    continued: frozenset[str]
    superseded: frozenset[str]
    walks: Sequence[Walk]

    def clear(self) -> None:
        """Remove the pages that are not needed after the snapshot was published."""
        self._close({walk.catalog for walk in self.walks})
        self.store.remove_superseded(self.read, self.superseded)

    def discard(self, catalogs: Collection[str | None]) -> None:
        """Remove the pages of catalogs that must not be continued."""
        self._close(catalogs)
        with contextlib.suppress(OctogenSnapshotError):
            self.store.discard_catalogs({self.read.name, *self.continued}, set(catalogs))

    def _close(self, catalogs: Collection[str | None]) -> None:
        for walk in self.walks:
            if walk.saved and walk.catalog in catalogs:
                walk.saved.saver.close()


def plan_with_store(
    search: ProductSearch,
    catalogs: list[Walk],
    split: Callable[[Sequence[Walk]], list[list[Walk]]],
    store: PageStore,
    service: CatalogService,
    *,
    client: BlockingClient,
    log: Log,
    warn: Log,
) -> tuple[Plan, Saving]:
    """Plan a read whose pages are saved; `split` plans catalogs that have no saved pages."""
    return _Resumer(store, service, client, log, warn).plan(
        search, catalogs, store.reads(log), split
    )


@dataclass(frozen=True)
class _Continued:
    """Saved pages that a read continues from.

    Attributes:
        saved: The pages.
        next_page: The page after them; None if there is none or it was not requested yet.
    """

    saved: SavedPages
    next_page: ProductPage | None


_WalkPages = tuple[Walk, "_Continued | None"]


@dataclass(frozen=True)
class _SavedWalks:
    """The walks of one catalog in a saved read.

    Attributes:
        read: The read.
        walks: The whole catalog or its parts, by their places in the read's record.
    """

    read: SavedRead
    walks: Mapping[int, Walk]

    @classmethod
    def of(cls, catalog: Walk, read: SavedRead) -> _SavedWalks:
        """Return the walks of a whole catalog; none if the read requested it otherwise."""
        is_same = read.search.request(catalog.catalog) == catalog.request
        return cls(read, read.record.walks(catalog) if is_same else {})

    @property
    def is_split(self) -> bool:
        """True if the read has the catalog in several walks."""
        return any(walk.part for walk in self.walks.values())


@dataclass(frozen=True)
class _Resumer:
    """Finds saved pages for the catalogs of one read.

    Attributes:
        store: The page store of the snapshot.
        service: The service.
        log: Called with a line about each decision.
        warn: Called with a line if pages cannot be saved.
    """

    store: PageStore
    service: CatalogService
    client: BlockingClient
    log: Log
    warn: Log

    def plan(
        self,
        search: ProductSearch,
        catalogs: list[Walk],
        saved: list[SavedRead],
        split: Callable[[Sequence[Walk]], list[list[Walk]]],
    ) -> tuple[Plan, Saving]:
        """Plan a read that continues from the usable pages of saved reads."""
        same = [read for read in saved if self._is_of(read, catalogs)]
        if others := len(saved) - len(same):
            self.log(
                f"{others} saved reads in {self.store.storage.folder} are not used: they are of "
                "another search or service."
            )
        continued = {
            each.catalog: self._continued(each, self._usable(each, same)) for each in catalogs
        }
        new = [each for each in catalogs if not continued[each.catalog]]
        parts = {each.catalog: walks for each, walks in zip(new, split(new), strict=True)}
        walks = in_reading_order(
            parts.get(each.catalog) or [walk for walk, _ in continued[each.catalog]]
            for each in catalogs
        )
        pages = {
            (walk.catalog, walk.part): found for each in continued.values() for walk, found in each
        }
        found = [pages.get((walk.catalog, walk.part)) for walk in walks]
        used = [each.saved.read for each in found if each]
        started_at = min([self.store.now(), *(read.record.started_at for read in used)])
        read = self.store.new_read(
            ReadRecord(
                base_url=self.service.base_url,
                search=search.as_json(),
                catalogs=[SavedCatalog.of(walk) for walk in walks],
                started_at=started_at,
            ),
            self.warn,
        )
        saved_walks = [
            self._saved_walk(read, place, walk, continued)
            for place, (walk, continued) in enumerate(zip(walks, found, strict=True))
        ]
        saving = Saving(
            self.store,
            read,
            frozenset(each.name for each in used),
            frozenset(each.name for each in same),
            saved_walks,
        )
        return Plan(search, saved_walks, started_at), saving

    def _is_of(self, read: SavedRead, catalogs: Sequence[Walk]) -> bool:
        """True if a read made the same request to the same service for one of the catalogs."""
        return read.record.base_url == self.service.base_url and any(
            _SavedWalks.of(catalog, read).walks for catalog in catalogs
        )

    def _usable(self, catalog: Walk, reads: Sequence[SavedRead]) -> list[_SavedWalks]:
        """The saved walks of a catalog that can be used, as far as their records tell."""
        usable = []
        for saved in (_SavedWalks.of(catalog, read) for read in reads):
            if not saved.walks:
                continue
            if reason := self._unusable_reason(catalog, saved):
                self.log(f"{catalog.subject}: {reason} They are not used.")
            else:
                usable.append(saved)
        return usable

    def _continued(self, catalog: Walk, usable: Sequence[_SavedWalks]) -> Sequence[_WalkPages]:
        """The walks of the read whose pages are the most that can be continued; none without it."""
        verified = [
            [
                (walk, verified_pages(saved.read, place, walk.subject, self.log))
                for place, walk in saved.walks.items()
            ]
            for saved in usable
        ]
        for walks in sorted(verified, key=_pages, reverse=True):
            continued = self._continued_walks(catalog, walks)
            if any(found for _, found in continued):
                for walk, found in continued:
                    if found:
                        self._log_continued(walk, found.saved)
                return continued
        return []

    def _continued_walks(
        self, catalog: Walk, walks: Sequence[tuple[Walk, SavedPages | None]]
    ) -> Sequence[_WalkPages]:
        """Request the pages after the saved ones of each walk of one saved read.

        Without a stamp, walks are of one state only if the saved pages of each can be continued.
        """
        continued: list[_WalkPages] = []
        for walk, pages in walks:
            try:
                found = _Continued(pages, self._next_page(walk, pages)) if pages else None
            except NotContinuedError as reason:
                self.log(f"{walk.subject}: {reason} They are not used.")
                if catalog.last_indexed_at is None:
                    if walk.part:
                        self.log(f"{catalog.subject}: its other saved pages are not used either.")
                    return []
                found = None
            continued.append((walk, found))
        return continued

    def _log_continued(self, walk: Walk, pages: SavedPages) -> None:
        self.log(
            f"{walk.subject}: continues after {pages.pages:,} pages that were saved by a read that "
            f"began at {pages.read.record.started_at:%Y-%m-%d %H:%M} UTC."
        )

    def _unusable_reason(self, catalog: Walk, saved: _SavedWalks) -> str | None:
        """Why a read's pages of a catalog cannot be used, as far as its record tells."""
        entries = [saved.read.record.catalogs[place] for place in saved.walks]
        if any(entry.last_indexed_at != catalog.last_indexed_at for entry in entries):
            return "it was indexed again since the saved pages were read."
        if saved.is_split and not self.service.max_extra_pages_ratio:
            return "its saved pages are of several walks, and max_extra_pages_ratio is 0."
        return self.store.unusable_reason(saved.read.record.started_at)

    def _next_page(self, catalog: Walk, pages: SavedPages) -> ProductPage | None:
        """Return the page after the saved ones; None if there is none or none is needed.

        Raises:
            NotContinuedError: The saved pages cannot be used.
        """
        if pages.next_cursor is None and catalog.last_indexed_at is not None:
            return None
        return request_next_page(catalog, pages, self.client)

    def _saved_walk(
        self, read: SavedRead, place: int, walk: Walk, continued: _Continued | None
    ) -> Walk:
        """Return a walk with its saved pages, which are taken over.

        If they cannot be taken over, they are read where they are.
        """
        began_at = read.record.started_at
        if continued is None:
            return replace(walk, saved=SavedWalk(PageSaver(read, place), began_at))
        saved = continued.saved
        source, segments = read, saved.segments
        try:
            segments = read.take_over(saved.read, segments, place)
        except RemovedError as error:
            self.log(f"{walk.subject}: {error} The catalog is read anew.")
            return replace(walk, saved=SavedWalk(PageSaver(read, place), began_at))
        except OctogenSnapshotError as error:
            read.give_up(error)
            source = saved.read
        saver = PageSaver(read, place, segments, saved.first.generation)
        return replace(
            walk,
            saved=SavedWalk(
                saver,
                began_at,
                source,
                segments=segments,
                pages=saved.pages,
                log=lambda line: self.log(f"{walk.subject}: {line}"),
            ),
            next_page=continued.next_page,
        )


def _pages(walks: Sequence[tuple[Walk, SavedPages | None]]) -> int:
    return sum(pages.pages for _, pages in walks if pages)
