"""Plans the catalogs that a search reads, each with its first request."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from octogen_dagster.api.catalog_sources import GrantedCatalogs, fetch_catalogs
from octogen_dagster.errors import OctogenNotFoundError

if TYPE_CHECKING:
    from datetime import datetime

    from octogen_dagster.api.blocking import BlockingClient
    from octogen_dagster.api.catalog_sources import CatalogService
    from octogen_dagster.api.catalog_states import CatalogState
    from octogen_dagster.api.search import ProductSearch, SearchRequest
    from octogen_dagster.frames.decode import ProductPage
    from octogen_dagster.frames.partition import CatalogPart
    from octogen_dagster.frames.pushdown import Pushdown

    ListCatalogs = Callable[[], Sequence[CatalogState] | None]

_LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True)
class FirstPage:
    """A page 1 that was requested while the read was planned.

    Attributes:
        page: The page.
        generation: The generation of the contract that the service speaks.
    """

    page: ProductPage
    generation: str


@dataclass(frozen=True)
class PlannedCatalog:
    """One catalog of a search, one part of a catalog, or all catalogs at once.

    Attributes:
        catalog: The catalog's key; None if the search names none.
        request: The request for page 1.
        last_indexed_at: When the service last indexed the catalog; None if it does not say.
        product_count: The number of products of the whole catalog by its source; None if it is not
            known.
        rows_per_product: The rows for each of them in the latest snapshot. The source may count
            groups of what a search lists. None if it is not known.
        brands: The number of products by brand, as far as the source says it.
        part: The part of the catalog; None for a whole catalog.
        first_page: Page 1, if it was requested already.
    """

    catalog: str | None
    request: SearchRequest
    last_indexed_at: datetime | None = None
    product_count: int | None = None
    rows_per_product: float | None = None
    brands: Mapping[str, int] = field(default_factory=dict)
    part: CatalogPart | None = None
    first_page: FirstPage | None = None

    @property
    def expected_rows(self) -> int | None:
        """The number of rows of the whole catalog; None if it is not known."""
        if self.product_count is None:
            return None
        return round(self.product_count * (self.rows_per_product or 1))

    @property
    def subject(self) -> str:
        """The subject that begins messages, such as "Catalog 'acme'"."""
        if self.catalog is None:
            return "The search"
        part = f", part {self.part.number} of {self.part.parts}" if self.part else ""
        return f"Catalog {self.catalog!r}{part}"

    def split(self, parts: Sequence[CatalogPart]) -> list[PlannedCatalog]:
        """Return the parts of this catalog, each with its own request."""
        return [
            replace(
                self,
                request=part.narrowed(self.request),
                part=part,
                first_page=None,
            )
            for part in parts
        ]


def plan_catalogs(
    search: ProductSearch,
    service: CatalogService,
    client: BlockingClient,
    list_catalogs: ListCatalogs | None,
    pushdown: Pushdown,
    *,
    stamped: bool = False,
    capped: bool = False,
) -> list[PlannedCatalog]:
    """Plan the catalogs that a search reads, in order.

    Args:
        search: The search.
        service: The service.
        client: Sends the requests.
        list_catalogs: Lists the catalogs of the source, as `list_for` does. By default the source
            is asked, if its list is needed.
        pushdown: Restricts the catalogs to those that the query needs.
        stamped: True if `last_indexed_at` is needed.
        capped: True if the query needs only some rows.

    Raises:
        OctogenError: A request failed.
    """
    states = None
    reads_list = _reads_list(search, service)
    if list_catalogs is not None:
        states = list_catalogs()
    elif stamped or reads_list:
        states = list_for(search, service, client, capped=capped)
    catalogs: Sequence[str | None] = search.catalogs or [None]
    if reads_list and states is not None:
        catalogs = [state.catalog for state in states]
    by_key = {state.catalog: state for state in states or ()}
    return [
        _planned(catalog, search, by_key.get(catalog) if catalog else None)
        for catalog in _pushed(catalogs, pushdown)
    ]


def list_for(
    search: ProductSearch,
    service: CatalogService,
    client: BlockingClient,
    warn: Callable[[str], None] = _LOGGER.warning,
    *,
    capped: bool = False,
) -> Sequence[CatalogState] | None:
    """List the catalogs of the service's source; None if it has no list and none is needed.

    Args:
        search: The search that the list is for.
        service: The service, with the source.
        client: Sends the requests.
        warn: Called with a line about each part of the source that could not be used.
        capped: True if the query needs only some rows.

    Raises:
        OctogenNotFoundError: The source has no list, and without one the search would read all of
            Octogen.
        OctogenError: A request failed.
    """
    try:
        listed = fetch_catalogs(client, service.catalogs, reads_all=not search.catalogs)
    except OctogenNotFoundError as error:
        if search.catalogs:
            return None
        if not isinstance(service.catalogs, GrantedCatalogs):
            raise
        if not capped:
            _refuse_all_of_octogen(search, service, error)
        return None
    if listed.failure and not search.catalogs:  # or the products of its catalogs would be missing
        raise listed.failure
    for line in listed.warnings:
        warn(line)
    return listed.catalogs


def _refuse_all_of_octogen(
    search: ProductSearch, service: CatalogService, error: OctogenNotFoundError
) -> None:
    """Refuse a search that would read all of Octogen, unless a budget limits it.

    Raises:
        OctogenNotFoundError: The search is refused.
    """
    is_narrow = bool(search.has_keywords or search.facets or search.max_products)
    if is_narrow or service.spending.budget_usd is not None:
        return
    raise error.with_message(
        f"{error} Without any of these the search would read all of Octogen, and each page of it "
        "is charged: narrow it with q, facets or max_products, or set "
        "OctogenResource(budget_usd=...). `octogen-dagster estimate` says what a read costs."
    ) from None


def _reads_list(search: ProductSearch, service: CatalogService) -> bool:
    """True if the catalogs of the source are read one by one.

    A capped search of all granted catalogs is one request, so that the best products come first.
    """
    is_capped = search.max_products is not None
    return not search.catalogs and not (is_capped and isinstance(service.catalogs, GrantedCatalogs))


def _planned(
    catalog: str | None, search: ProductSearch, state: CatalogState | None
) -> PlannedCatalog:
    request = search.request(catalog)
    if state is None:
        return PlannedCatalog(catalog, request)
    return PlannedCatalog(
        catalog,
        request,
        state.last_indexed_at,
        product_count=state.product_count,
        brands=dict(state.brands),
    )


def _pushed(catalogs: Sequence[str | None], pushdown: Pushdown) -> Sequence[str | None]:
    if None in catalogs or pushdown.catalogs is None:
        return catalogs
    # The service and the search may write a key in different case.
    wanted = {key.casefold() for key in pushdown.catalogs}
    return [key for key in catalogs if key and key.casefold() in wanted]
