"""Count a read's products in advance, free of charge."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from octogen_dagster.api.blocking import BlockingClient
from octogen_dagster.api.catalog_sources import ShopCatalogs, fetch_catalogs, several_by_host
from octogen_dagster.api.catalog_states import CatalogState
from octogen_dagster.api.search import SearchFilters
from octogen_dagster.errors import OctogenNotFoundError


class Count(NamedTuple):
    """The number of products in a catalog or search. `products` is None if unknown."""

    subject: str
    products: int | None
    is_lower_bound: bool = False


class Counts(NamedTuple):
    """The product counts for a read, with warnings.

    `several` contains the catalogs for each host that has more than one catalog.
    """

    counts: Sequence[Count]
    warnings: Sequence[str]
    several: dict[str, list[CatalogState]]


def count_read(
    client: BlockingClient, search: SearchFilters, catalogs: Sequence[str], hosts: Sequence[str]
) -> Counts:
    """Count the products that match a search. `catalogs` and `hosts` select the catalogs.

    If the search has no filters, each catalog is counted separately. Otherwise, the result has one
    count for the search, or one count per catalog if a host has several catalogs. If neither
    catalogs nor hosts are given, all catalogs are counted. If only hosts are given and none of them
    has a catalog, the result has no counts.
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
    subjects = [(key, [key]) for key in keys] if several else [("the search", keys)]
    counts = [_count_search(client, subject, search, each) for subject, each in subjects]
    return Counts(counts, warnings, several)


def _whole_catalogs(
    client: BlockingClient, keys: Sequence[str], shop_states: Sequence[CatalogState]
) -> list[Count]:
    """Count the products in each of the given catalogs, or in all catalogs if none are given.

    `shop_states` usually contain product counts, so only the other catalogs need a request.
    """
    counts = {state.catalog: Count(state.catalog, state.product_count) for state in shop_states}
    left = [key for key in keys if key not in counts or counts[key].products is None]
    if counts and not left:
        return [*counts.values()]
    try:
        listed = client.list_catalog_states().catalogs
    except OctogenNotFoundError:  # services with the current contract cannot list catalogs
        everything = SearchFilters()
        if not left:
            return [_count_search(client, "all of Octogen", everything, [])]
        counts |= {key: _count_search(client, key, everything, [key]) for key in left}
        return [*counts.values()]
    granted = {state.catalog: state.product_count for state in listed}
    if missing := [key for key in left if key not in granted]:
        raise ValueError(
            f"Catalog {missing[0]!r} is not granted to the API key. Granted catalogs: "
            f"{', '.join(sorted(granted)) or 'none'}."
        )
    counts |= {key: Count(key, granted[key]) for key in left or granted}
    return [*counts.values()]


def _count_search(
    client: BlockingClient, subject: str, search: SearchFilters, keys: Sequence[str]
) -> Count:
    return Count(subject, client.count_products(search, keys), is_lower_bound=True)
