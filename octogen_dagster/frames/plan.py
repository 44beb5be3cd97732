"""What a scan reads: which walks it makes, and which of their pages are saved already.

No reading of pages here but for one: whether the service still knows a saved cursor.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from octogen_dagster.api.client import OctogenClient
from octogen_dagster.api.errors import OctogenNotFoundError, OctogenPastPartitionError
from octogen_dagster.frames.checkpoint import Landing, PageSaver, PageStore, SavedPages, walk_root
from octogen_dagster.frames.reader import CatalogRead
from octogen_dagster.frames.search import ProductSearch
from octogen_dagster.frames.wire import WirePage, read_page

if TYPE_CHECKING:
    from octogen_dagster.api.connection import Connection
    from octogen_dagster.api.models import MerchantCatalogSummary
    from octogen_dagster.frames.pushdown import Pushdown

    Granted = Callable[[], Sequence[MerchantCatalogSummary] | None]

TimeWindow = tuple[datetime, datetime]


@dataclass(frozen=True)
class ReadPlan:
    """The walks of one read.

    Attributes:
        search: What is read.
        reads: The walks, in order.
        started_at: When the read began; earlier than now if it is continued or was landed.
        landed: Whether every page is a landed one.
    """

    search: ProductSearch
    reads: list[CatalogRead]
    started_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    landed: bool = False


def plan_live(
    search: ProductSearch, connection: Connection, granted: Granted | None, pushdown: Pushdown
) -> ReadPlan:
    """Walks that read from the service.

    Args:
        search: What to read.
        connection: How to reach the service.
        granted: Lists the granted catalogs, or says None for a service that does not.
        pushdown: Catalogs that are enough for the query.
    """
    catalogs: Sequence[str | None] = search.catalogs
    whole = not catalogs and search.max_products is None
    summaries = granted() if granted else _granted(connection) if whole else None
    if not catalogs:
        catalogs = (
            [entry.catalog for entry in summaries] if whole and summaries is not None else [None]
        )
    if None not in catalogs and pushdown.catalogs is not None:
        # The service may spell a key in another way than the search does.
        wanted = {key.casefold() for key in pushdown.catalogs}
        catalogs = [key for key in catalogs if key and key.casefold() in wanted]
    known = {summary.catalog: summary for summary in summaries or ()}
    return ReadPlan(
        search,
        [
            CatalogRead.of(search.request(catalog), known.get(catalog) if catalog else None)
            for catalog in catalogs
        ],
    )


def _granted(connection: Connection) -> list[MerchantCatalogSummary] | None:
    """The granted catalogs; None from a service that does not list them."""
    try:
        return connection.call(OctogenClient.list_catalogs)
    except OctogenNotFoundError:
        return None


def plan_saved(
    live: Callable[[], ReadPlan],
    store: PageStore,
    connection: Connection,
    window: TimeWindow | None,
    log: Callable[[str], None],
) -> ReadPlan:
    """The walks of a read whose pages are saved: continued, rebuilt from landed pages, or live.

    Args:
        live: Plans a read from the service.
        store: Where pages are saved.
        connection: How to reach the service.
        window: The beginning and the end of the time the snapshot is of, if it has one.
        log: Takes a line on what is decided.

    Raises:
        OctogenPastPartitionError: The window is over and there are no landed pages of it, or has
            not begun.
        OctogenSnapshotError: The landed pages are damaged.
    """
    over = window is not None and not is_now(window)
    if window and over and (landing := store.landing()) and _is_within(landing, window):
        log(f"Rebuilt from the pages that were landed at {landing.started_at:%Y-%m-%d %H:%M} UTC.")
        return plan_landed(landing, store)
    plan = _continued(live(), store, connection, log)
    if window and over and not window[0] <= plan.started_at < window[1]:
        raise OctogenPastPartitionError(*window)
    return plan


def is_now(window: TimeWindow) -> bool:
    """Whether the window has begun and is not over."""
    return window[0] <= datetime.now(UTC) < window[1]


def _is_within(landing: Landing, window: TimeWindow) -> bool:
    return window[0] <= landing.started_at < window[1]


def plan_landed(landing: Landing, store: PageStore) -> ReadPlan:
    """The walks of a read that is rebuilt from its landed pages.

    Raises:
        OctogenSnapshotError: They are damaged.
    """
    search = ProductSearch.model_validate(landing.search)
    reads = []
    for walk in landing.walks:
        read = CatalogRead.of(search.request(walk.catalog), None)
        read.saved, read.live = store.pages(walk.segments, read.walk.subject), False
        reads.append(read)
    return ReadPlan(search, reads, landing.started_at, landed=True)


def _continued(
    plan: ReadPlan, store: PageStore, connection: Connection, log: Callable[[str], None]
) -> ReadPlan:
    chains: dict[CatalogRead, SavedPages | None] = {}
    roots = {
        read: walk_root(read.request, connection.base_url, read.summary) for read in plan.reads
    }
    segments = store.segments()
    for read, root in roots.items():
        saved, notes = store.saved(root, read.walk.subject, segments)
        for note in notes:
            log(note)
        if saved and saved.next_cursor:
            ahead, reason = _next_page(saved, saved.next_cursor, read, connection)
            if reason:
                log(f"{read.walk.subject}: {reason} The read starts over.")
                saved = None
            else:
                read.ahead = ahead
        chains[read] = saved
        if saved:
            read.saved, read.live = saved, saved.next_cursor is not None
            log(
                f"{read.walk.subject}: continues after {saved.pages:,} pages that were saved by a "
                f"read that began at {saved.started_at:%Y-%m-%d %H:%M} UTC."
            )
    used = [chain for chain in chains.values() if chain]
    started_at = min([plan.started_at, *(chain.started_at for chain in used)])
    names = {name for following in segments.values() for name in following}
    if others := names.difference(*(chain.segments for chain in used)):
        log(
            f"{len(others)} files of saved pages in {store.folder} are not used: they are of "
            "another search, service or version, or of a catalog that was indexed again since."
        )
    for read, root in roots.items():
        read.saver = PageSaver(store, root, chains[read], started_at)
    return ReadPlan(plan.search, plan.reads, started_at)


def _next_page(
    saved: SavedPages, cursor: str, read: CatalogRead, connection: Connection
) -> tuple[WirePage | None, str]:
    """The page after the saved ones, or why they cannot be continued."""

    async def ask(client: OctogenClient) -> tuple[WirePage, str]:
        page = await client.page(
            read.request.following(cursor), read.walk.subject, saved.pages + 1, read_page
        )
        return page, client.generation

    page, generation = connection.call(ask)
    if saved.is_stale(page):
        return None, (
            "the service no longer knows the cursor of the saved pages and answered page 1 again."
        )
    if generation != saved.generation:
        return None, "the service speaks another generation of its contract than before."
    return page, ""
