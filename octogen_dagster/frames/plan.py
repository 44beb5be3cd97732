"""What a scan reads: which walks it makes, and which of their pages are saved already.

No reading of pages here but for one: whether the service still knows a saved cursor.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import TYPE_CHECKING

from pydantic import ValidationError

from octogen_dagster.api.client import OctogenClient
from octogen_dagster.errors import (
    OctogenAPIError,
    OctogenNotFoundError,
    OctogenPagingError,
    OctogenPastPartitionError,
    OctogenSnapshotError,
)
from octogen_dagster.frames.decode import PageDecoder
from octogen_dagster.frames.pages.saver import PageSaver
from octogen_dagster.frames.pages.segments import Landing, Segments, digest_of, walk_root
from octogen_dagster.frames.pages.store import PageStore, SavedPages, TimeWindow
from octogen_dagster.frames.reader import CatalogRead
from octogen_dagster.frames.schema import PRODUCT_SCHEMA
from octogen_dagster.frames.search import ProductSearch
from octogen_dagster.frames.wire import WirePage, read_page

if TYPE_CHECKING:
    from octogen_dagster.api.connection import Connection
    from octogen_dagster.api.models import MerchantCatalogSummary
    from octogen_dagster.frames.pushdown import Pushdown

    Granted = Callable[[], Sequence[MerchantCatalogSummary] | None]


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
    started_at: datetime = field(default_factory=lambda: datetime.now(timezone.utc))
    landed: bool = False


def plan_live(
    search: ProductSearch,
    connection: Connection,
    granted: Granted | None,
    pushdown: Pushdown,
    *,
    saved: bool = False,
) -> ReadPlan:
    """Walks that read from the service.

    Args:
        search: What to read.
        connection: How to reach the service.
        granted: Lists the granted catalogs, or says None for a service that does not.
        pushdown: Catalogs that are enough for the query.
        saved: Whether pages are saved: then it matters when each catalog was indexed.
    """
    catalogs: Sequence[str | None] = search.catalogs
    whole = not catalogs and search.max_products is None
    summaries = granted() if granted else _granted(connection) if whole or saved else None
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


def check_states(reads: Sequence[CatalogRead], connection: Connection) -> None:
    """That no walk began again because its catalog was indexed again.

    Where the service does not say when it was, page 1 has to bring the products that it brought.

    Raises:
        OctogenPagingError: One did.
        OctogenError: The service does not answer.
    """
    again = [
        read
        for read in reads
        if (read.walk.restarts or read.walk.may_have_restarted)
        and read.walk.pages > read.saved_pages
    ]
    summaries = _granted(connection) if any(map(_is_stamped, again)) else None
    now = {summary.catalog: summary.last_indexed_at for summary in summaries or ()}
    for read in again:
        if read.catalog and read.summary and read.summary.last_indexed_at:
            changed = now.get(read.catalog) != read.summary.last_indexed_at
        else:
            changed = _first_uuids(read, connection) != list(read.walk.first_uuids)
        if changed:
            raise OctogenPagingError(
                f"{read.walk.subject}: it was indexed again while it was read, and the service "
                "began again at page 1: what came before and after that must not be mixed. "
                "Nothing was published; run it again."
            )


def _first_uuids(read: CatalogRead, connection: Connection) -> list[str]:
    page = connection.call(
        lambda client: client.get_raw_page(read.request, read.walk.subject, 1, read_page)
    )
    return list(page.uuids)


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
    past = window if window and not is_now(window) else None
    if past and (landing := store.landing()) and past[0] <= landing.started_at < past[1]:
        log(f"Rebuilt from the pages that were landed at {landing.started_at:%Y-%m-%d %H:%M} UTC.")
        return plan_landed(landing, store)
    segments = store.segments()
    if past and not segments:
        raise OctogenPastPartitionError(*past)
    return _continued(live(), store, segments, connection, past=past, log=log)


def is_now(window: TimeWindow) -> bool:
    """Whether the window has begun and is not over."""
    return window[0] <= datetime.now(timezone.utc) < window[1]


def plan_landed(landing: Landing, store: PageStore) -> ReadPlan:
    """The walks of a read that is rebuilt from its landed pages.

    Raises:
        OctogenSnapshotError: They are damaged.
    """
    try:
        search = ProductSearch.model_validate(landing.search)
    except ValidationError as error:
        raise OctogenSnapshotError(
            f"The landed pages in {store.folder} are of a search that this version does not know: "
            f"{error}. Update octogen-dagster."
        ) from None
    reads = []
    for walk in landing.walks:
        read = CatalogRead.of(search.request(walk.catalog), None)
        read.saved, read.live = store.pages(walk.root, walk.segments, read.walk.subject), False
        reads.append(read)
    return ReadPlan(search, reads, landing.started_at, landed=True)


def _continued(
    plan: ReadPlan,
    store: PageStore,
    segments: Segments,
    connection: Connection,
    *,
    past: TimeWindow | None,
    log: Callable[[str], None],
) -> ReadPlan:
    """The plan with what is saved of it.

    Raises:
        OctogenPastPartitionError: A walk would begin after the time that the snapshot is of.
    """
    used: dict[CatalogRead, SavedPages] = {}
    catalogs = digest_of([read.catalog for read in plan.reads])
    roots = {
        read: walk_root(read.request, connection.base_url, read.summary) for read in plan.reads
    }
    for read, root in roots.items():
        for chain in store.chains(root, read.walk.subject, segments, log, past):
            if past and chain.next_cursor and not _is_stamped(read):
                continue  # the rest may be of another state of the catalog
            if chain.next_cursor or not (past or _is_stamped(read)):
                page = _next_page(chain, read, connection)
                if isinstance(page, str):
                    store.abandon(chain, log, page)
                    continue
                read.ahead = page
            read.saved, used[read] = chain, chain
            read.gone = None if past else log
            log(
                f"{read.walk.subject}: continues after {chain.pages:,} pages that were saved by a "
                f"read that began at {chain.started_at:%Y-%m-%d %H:%M} UTC."
            )
            break
        if past and not (read in used and past[0] <= used[read].started_at < past[1]):
            raise OctogenPastPartitionError(*past)
    if past and catalogs not in {chain.catalogs for chain in used.values()}:
        log(
            f"The saved pages in {store.folder} are of a read of other catalogs than are granted "
            "now: they are not used."
        )
        raise OctogenPastPartitionError(*past)
    names = {name for following in segments.values() for name in following}
    if others := names.difference(*(chain.segments for chain in used.values())):
        log(
            f"{len(others)} files of saved pages in {store.folder} are not used. Those that the "
            "lines above do not tell of are of another search, service, version or run, or of a "
            "catalog that was indexed again since."
        )
    started_at = min([plan.started_at, *(chain.started_at for chain in used.values())])
    for read, root in roots.items():
        read.saver = PageSaver(store, root, used.get(read), started_at, catalogs)
    return ReadPlan(plan.search, plan.reads, started_at)


_OF_THE_REQUEST = {"display_match_score", "raw_score"}
_REFUSED = {400, 404, 409, 410, 422}


def _is_stamped(read: CatalogRead) -> bool:
    """Whether the service says when the catalog was indexed, which its chain's root depends on."""
    return read.summary is not None and read.summary.last_indexed_at is not None


def _next_page(
    saved: SavedPages, read: CatalogRead, connection: Connection
) -> WirePage | str | None:
    """The page after the saved ones, if there is one, or why they cannot be continued."""
    # Where nothing else tells whether the catalog is still the same, its pages have to.
    again = (
        {} if _is_stamped(read) else {None: saved.first_page, saved.last_cursor: saved.last_page}
    )

    async def ask(client: OctogenClient) -> tuple[WirePage | None, str, str | None]:
        async def asked(cursor: str | None, number: int) -> WirePage:
            request = read.request.following(cursor) if cursor else read.request
            return await client.get_raw_page(request, read.walk.subject, number, read_page)

        following = saved.next_cursor
        page = await asked(following, saved.pages + 1) if following else None
        for before, page_before in again.items():
            number = saved.pages if before else 1
            if not _are_equal(page_before, await asked(before, number), read):
                return page, client.generation, f"page {number:,}"
        return page, client.generation, None

    try:
        page, generation, differs = connection.call(ask)
    except OctogenAPIError as error:
        if error.status_code not in _REFUSED:
            raise
        return f"the service refuses the cursor of the saved pages ({error.status_code})."
    if page and saved.is_stale(page):
        return (
            "the service no longer knows the cursor of the saved pages and answered page 1 again."
        )
    if differs:
        return f"{differs} is no longer the one that was saved: the catalog was indexed again."
    if generation != saved.generation:
        return "the service speaks another generation of its contract than the saved pages."
    return page


def _are_equal(one: WirePage, other: WirePage, read: CatalogRead) -> bool:
    """Whether two pages bring the same rows."""
    decoder = PageDecoder(PRODUCT_SCHEMA.keys() - _OF_THE_REQUEST, datetime.min)
    first, second = (
        decoder.decode([page], read.catalog, read.walk.subject) for page in (one, other)
    )
    return first.equals(second)
