"""Plans a read whose pages are saved: its walks continue from saved pages, or begin anew."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING

from octogen_dagster.api.paging import may_be_first_page
from octogen_dagster.errors import OctogenAPIError
from octogen_dagster.frames.columns import PRODUCT_SCHEMA
from octogen_dagster.frames.decode import ProductPage, product_frame, read_page
from octogen_dagster.frames.effective_query import is_same
from octogen_dagster.frames.pages import PageStore, SavedWalk, walk_key
from octogen_dagster.frames.plan import ReadPlan, in_reading_order
from octogen_dagster.frames.walk import REFUSED_CURSOR_STATUSES, Walk
from octogen_dagster.printable import count

if TYPE_CHECKING:
    from octogen_dagster.api.blocking import BlockingClient
    from octogen_dagster.api.search import ProductSearch

Log = Callable[[str], None]
_SCORES = {"display_match_score", "raw_score"}


class NotContinuedError(Exception):
    """Saved pages cannot be continued; the message says why."""


def plan_with_store(
    search: ProductSearch,
    catalogs: Sequence[Sequence[Walk]],
    store: PageStore,
    client: BlockingClient,
    *,
    log: Log,
    warn: Log,
) -> ReadPlan:
    """Plan a read whose pages are saved, from the walks of each catalog."""
    store.begin(log, warn)
    walks = in_reading_order([_continued(walks, store, client, log) for walks in catalogs])
    began = [walk.saved.started_at for walk in walks if walk.saved and walk.saved.pages]
    return ReadPlan(search, walks, min([store.now(), *began]))


def _continued(
    walks: Sequence[Walk], store: PageStore, client: BlockingClient, log: Log
) -> list[Walk]:
    """Return the walks of one catalog with their saved pages, and the pages after those.

    Walks without saved pages, or whose pages cannot be continued, begin anew. If the service does
    not say when the catalog was indexed, all of them do once the pages of one have changed: walks
    must be of one state.
    """
    continued = []
    # The last pages of several walks tell as much as the first and the last page of one.
    compares_first = len(walks) == 1 or not all(_saved(each, store, client).pages for each in walks)
    for walk in walks:
        saved, next_page = _saved(walk, store, client), None
        if saved.pages:
            try:
                next_page = _next_page(walk, saved, client, compares_first=compares_first)
            except NotContinuedError as reason:
                log(f"{walk.subject}: {reason} They are not used.")
                if walk.last_indexed_at is None and len(walks) > 1:
                    log(f"Catalog {walk.catalog!r}: its other saved pages are not used either.")
                    store.discard([_saved(each, store, client).key for each in walks])
                    return [replace(each, saved=_saved(each, store, client)) for each in walks]
                store.discard([saved.key])
                saved = _saved(walk, store, client)
            else:
                log(
                    f"{walk.subject}: continues after {count(saved.pages, 'saved page')} of a "
                    f"read that began at {saved.started_at:%Y-%m-%d %H:%M} UTC."
                )
        elif store.has_other_times(saved.key):
            log(f"{walk.subject}: it was indexed again since its saved pages were read.")
        saved.first = saved.last = None  # they were compared, and are read again
        continued.append(replace(walk, saved=saved, next_page=next_page))
    return continued


def _saved(walk: Walk, store: PageStore, client: BlockingClient) -> SavedWalk:
    body, part = walk.request.body(), None
    if walk.part:  # only whole catalogs are split, and these have no facets
        part = [body.pop("facets", None), body.pop("exclude_facets", None)]
    indexed_times = [state.last_indexed_at for state in walk.catalogs]
    return store.walk(walk_key(client.service.base_url, body, indexed_times, part, store.scope))


def _next_page(
    walk: Walk, saved: SavedWalk, client: BlockingClient, *, compares_first: bool
) -> ProductPage | None:
    """Request the page after saved ones; None if there is none, or none is needed.

    If the service does not say when the catalog was indexed, the last saved page is requested too
    and compared, and the first one if it `compares_first`.
    """
    first, last = saved.first, saved.last
    assert first
    assert last
    page = None
    try:
        if last.next_cursor:
            page = _requested(walk, last.next_cursor, saved.pages + 1, first, client)
        if walk.last_indexed_at is None:
            compared = {saved.pages: (saved.last_cursor, last)}
            if compares_first:
                compared = {1: (None, first)} | compared
            for number, (cursor, before) in compared.items():
                now = _requested(walk, cursor, number, first, client)
                if not _are_equal(before, now, walk.catalog):
                    raise NotContinuedError(
                        f"page {number:,} is no longer the one that was saved: the catalog was "
                        "indexed again."
                    )
    except OctogenAPIError as error:
        if error.status_code not in REFUSED_CURSOR_STATUSES:
            raise
        raise NotContinuedError(
            f"the service refuses the cursor of the saved pages ({error.status_code})."
        ) from None
    if page and may_be_first_page(first, page):
        raise NotContinuedError(
            "the service no longer knows the cursor of the saved pages and answered page 1 again."
        )
    if (page or walk.last_indexed_at is None) and client.service.generation != saved.generation:
        raise NotContinuedError(
            "the service speaks another generation of its contract than the saved pages."
        )
    return page


def _are_equal(saved: ProductPage, now: ProductPage, catalog: str | None) -> bool:
    """True if two pages have the same rows, scores aside, and both or none is the last one."""
    columns = PRODUCT_SCHEMA.keys() - _SCORES
    before, after = (product_frame([page], columns, catalog, datetime.min) for page in (saved, now))
    return bool(now.next_cursor) == bool(saved.next_cursor) and before.equals(after)


def _requested(
    walk: Walk,
    cursor: str | None,
    number: int,
    first: ProductPage,
    client: BlockingClient,
) -> ProductPage:
    """Request a page of a search that must be understood as it was on the saved page 1."""
    request = walk.request.following(cursor) if cursor else walk.request
    page = client.page(request, walk.subject, number, read_page)
    if not is_same(page.effective_query, first.effective_query):
        raise NotContinuedError(
            "the service understands the search otherwise than when its pages were saved."
        )
    return page
