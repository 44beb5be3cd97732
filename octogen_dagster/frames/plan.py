"""Plans the catalogs that a search reads, each with its first request."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from octogen_dagster.api.client import OctogenClient
from octogen_dagster.errors import OctogenNotFoundError

if TYPE_CHECKING:
    from datetime import datetime

    from octogen_dagster.api.connection import Connection
    from octogen_dagster.api.models import MerchantCatalogSummary
    from octogen_dagster.api.search_request import SearchRequest
    from octogen_dagster.frames.pushdown import Pushdown
    from octogen_dagster.frames.search import ProductSearch

    ListGranted = Callable[[], Sequence[MerchantCatalogSummary] | None]


@dataclass(frozen=True)
class PlannedCatalog:
    """One catalog of a search, or all of them at once.

    Attributes:
        catalog: The catalog's key; None if the search names none.
        request: The request for page 1.
        last_indexed_at: When the service last indexed the catalog; None if it does not say.
        is_listed: True if the service's list of catalogs has it.
    """

    catalog: str | None
    request: SearchRequest
    last_indexed_at: datetime | None = None
    is_listed: bool = False

    @property
    def subject(self) -> str:
        """The subject that begins messages, such as "Catalog 'acme'"."""
        return f"Catalog {self.catalog!r}" if self.catalog else "The search"


def plan_catalogs(
    search: ProductSearch,
    connection: Connection,
    list_granted: ListGranted | None,
    pushdown: Pushdown,
    *,
    stamped: bool = False,
) -> list[PlannedCatalog]:
    """Plan the catalogs that a search reads, in order.

    Args:
        search: The search.
        connection: The settings of the service.
        list_granted: Lists the granted catalogs, or returns None for a service that has no list.
            By default the service is asked, if its list is needed.
        pushdown: Restricts the catalogs to those that the query needs.
        stamped: True if `last_indexed_at` is needed.

    Raises:
        OctogenError: A request failed.
    """
    summaries = None
    if list_granted is not None:
        summaries = list_granted()
    elif stamped or _is_whole(search):
        summaries = list_granted_catalogs(connection)
    catalogs: Sequence[str | None] = search.catalogs or [None]
    if _is_whole(search) and summaries is not None:
        catalogs = [summary.catalog for summary in summaries]
    stamps: dict[str | None, datetime | None] = {
        summary.catalog: summary.last_indexed_at for summary in summaries or ()
    }
    return [
        PlannedCatalog(
            catalog,
            search.request(catalog),
            stamps.get(catalog) if catalog else None,
            is_listed=catalog in stamps,
        )
        for catalog in _pushed(catalogs, pushdown)
    ]


def list_granted_catalogs(connection: Connection) -> list[MerchantCatalogSummary] | None:
    """List the granted catalogs; None if the service has no list."""
    try:
        return connection.call(OctogenClient.list_catalogs)
    except OctogenNotFoundError:
        return None


def _is_whole(search: ProductSearch) -> bool:
    """True if every granted catalog is read to its end."""
    return not search.catalogs and search.max_products is None


def _pushed(catalogs: Sequence[str | None], pushdown: Pushdown) -> Sequence[str | None]:
    if None in catalogs or pushdown.catalogs is None:
        return catalogs
    # The service and the search may write a key in different case.
    wanted = {key.casefold() for key in pushdown.catalogs}
    return [key for key in catalogs if key and key.casefold() in wanted]
