"""The number of products of a read, counted before it and without a charged search."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from octogen_dagster.api.blocking import BlockingClient
from octogen_dagster.api.catalog_sources import ShopCatalogs, fetch_catalogs, several_by_host
from octogen_dagster.api.catalog_states import CatalogState
from octogen_dagster.api.search import SearchFilters
from octogen_dagster.errors import OctogenNotFoundError


class Count(NamedTuple):
    """The number of products of a catalog or a search; None if it is not known."""

    subject: str
    products: int | None
    is_lower_bound: bool = False


class Counts(NamedTuple):
    """The counts of a read, warnings, and the catalogs of each host that more than one serves."""

    counts: Sequence[Count]
    warnings: Sequence[str]
    several: dict[str, list[CatalogState]]


def count_read(
    client: BlockingClient, search: SearchFilters, catalogs: Sequence[str], hosts: Sequence[str]
) -> Counts:
    """Count the products of a search, or of whole catalogs: named ones and those of shops.

    A search is counted as one, unless several catalogs serve a host. Without catalogs and hosts it
    is a read of everything; with shops that have no catalog there are no counts.
    """
    states: list[CatalogState] = []
    warnings: list[str] = []
    if hosts:
        listed = fetch_catalogs(client, ShopCatalogs(hosts))
        states, warnings = list(listed.catalogs), list(listed.warnings)
    several = several_by_host(states)
    keys = list(dict.fromkeys([*catalogs, *(state.catalog for state in states)]))
    if hosts and not keys:
        return Counts([], warnings, several)
    if not search.has_filters:
        return Counts(_whole_catalogs(client, catalogs, states), warnings, several)
    apart = [(key, [key]) for key in keys] if several else [("the search", keys)]
    counts = [_counted(client, subject, search, each) for subject, each in apart]
    return Counts(counts, warnings, several)


def _whole_catalogs(
    client: BlockingClient, keys: Sequence[str], of_shops: Sequence[CatalogState]
) -> list[Count]:
    """Count the products of named catalogs and those of shops; of all catalogs if there are none.

    What a shop says of a catalog is more than a count, and takes no further request.
    """
    counts = {state.catalog: Count(state.catalog, state.product_count) for state in of_shops}
    left = [key for key in keys if key not in counts or counts[key].products is None]
    if counts and not left:
        return [*counts.values()]
    try:
        listed = client.list_catalog_states().catalogs
    except OctogenNotFoundError:  # a service of the current contract, which lists no catalogs
        everything = SearchFilters()
        if not left:
            return [_counted(client, "all of Octogen", everything, [])]
        counts |= {key: _counted(client, key, everything, [key]) for key in left}
        return [*counts.values()]
    granted = {state.catalog: state.product_count for state in listed}
    if missing := [key for key in left if key not in granted]:
        raise ValueError(
            f"Catalog {missing[0]!r} is not granted to this key. Granted: "
            f"{', '.join(sorted(granted)) or 'none'}."
        )
    counts |= {key: Count(key, granted[key]) for key in left or granted}
    return [*counts.values()]


def _counted(
    client: BlockingClient, subject: str, search: SearchFilters, keys: Sequence[str]
) -> Count:
    return Count(subject, client.count_products(search, keys), is_lower_bound=True)
