"""The command `octogen-dagster estimate`: what a read costs, told without a charged search."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from octogen_dagster.api.spending import LOOKUP_USD, SEARCH_PAGE_USD
from octogen_dagster.cli.errors import reporting_errors
from octogen_dagster.cli.options import CONTEXT_SETTINGS

if TYPE_CHECKING:
    from octogen_dagster.api.blocking import BlockingClient
    from octogen_dagster.api.catalog_sources import CatalogService
    from octogen_dagster.api.catalog_states import CatalogState
    from octogen_dagster.api.search import SearchFilters

_IS_LOWER_BOUND = (
    "Products without a category are not counted, so this is a lower bound. For a whole catalog "
    "`--host` of its shop says more."
)
_IS_NO_BOUND = (
    "Keywords do not narrow the count, and products without a category are not counted: it may be "
    "less or more."
)


class _Count(NamedTuple):
    """The number of products of a catalog or a search; None if it is not known."""

    subject: str
    products: int | None
    is_lower_bound: bool = False


@click.command(context_settings=CONTEXT_SETTINGS)
@click.option("--catalog", "catalogs", multiple=True, help="Catalog key. Can be repeated.")
@click.option("--host", "hosts", multiple=True, help="Host of a shop. Can be repeated.")
@click.option("--q", default=None, help="Keywords of a search.")
@click.option("--understand", is_flag=True, help="Let Octogen derive filters from the keywords.")
@click.option(
    "--facet", "facets", multiple=True, metavar="NAME=VALUE", help="Filter. Can be repeated."
)
@click.option("--price-min", type=float, default=None, help="Lowest current price.")
@click.option("--price-max", type=float, default=None, help="Highest current price.")
@click.option("--page-size", type=click.IntRange(1, 100), default=100, help="Products on a page.")
@click.option(
    "--search-page-usd", type=float, default=SEARCH_PAGE_USD, help="Dollars for a search page."
)
@click.option("--lookup-usd", type=float, default=LOOKUP_USD, help="Dollars for a lookup.")
@click.option(
    "--base-url",
    default=None,
    envvar="OCTOGEN_BASE_URL",
    show_envvar=True,
    help="Base URL of the API.  [default: https://api.octogen.ai/v1, or at OCTOGEN_HOST]",
)
@reporting_errors
def estimate(
    *,
    catalogs: Sequence[str],
    hosts: Sequence[str],
    facets: Sequence[str],
    page_size: int,
    search_page_usd: float,
    lookup_usd: float,
    base_url: str | None,
    **filters: Any,
) -> None:
    """Say what a read costs: products, pages, dollars and time.

    Without options it is a read of everything. Nothing is searched and nothing is looked up; the
    API key is read from the environment. Octogen says how many products a shop's catalogs have.
    Of searches and named catalogs it counts only the products that have a category, which is a
    lower bound. Exit status: 0 estimated, 1 failed, 2 bad input.
    """
    from octogen_dagster.api.blocking import BlockingClient
    from octogen_dagster.api.catalog_sources import CatalogService, several_by_host
    from octogen_dagster.api.credentials import configured_base_url
    from octogen_dagster.api.spending import Prices, Spending

    if not all(key.strip() for key in catalogs):
        raise ValueError("--catalog is empty: name the key of a catalog")
    search = _search(facets=_facets(facets), **filters)
    service = CatalogService(
        base_url=base_url or configured_base_url(),
        spending=Spending(Prices(search_page_usd, lookup_usd)),
    )
    with BlockingClient(service) as client:
        states = _of_shops(client, hosts) if hosts else []
        keys = list(dict.fromkeys([*catalogs, *(state.catalog for state in states)]))
        if hosts and not keys:
            click.echo("The shops have no catalogs.")
            return
        several = several_by_host(states)
        if search.has_filters:
            apart = [(key, [key]) for key in keys] if several else [("the search", keys)]
            counts = [_counted(client, subject, search, each) for subject, each in apart]
        else:
            counts = _whole_catalogs(client, list(catalogs), states)
    click.echo("\n".join(_table(service, counts, page_size)))
    if any(each.is_lower_bound for each in counts):
        click.echo(_IS_NO_BOUND if search.has_keywords else _IS_LOWER_BOUND)
    for host, of_host in several.items():
        click.echo(
            f"{host} is served by {len(of_host)} catalogs, one of which may be an aggregate of "
            "many shops. To read only some, name them: "
            f"ShopCatalogs(hosts=[{host!r}], catalogs=[{of_host[0].catalog!r}])."
        )


def _table(service: CatalogService, counts: Sequence[_Count], page_size: int) -> list[str]:
    """Return the lines of a table of the counts and their sum, and what is to be known of it."""
    from octogen_dagster.api.estimate import estimate_lookups, estimate_pages

    rows = [("", "products", "pages", "cost", "with details")]
    total = [each.products for each in counts if each.products]
    sums = [(each.subject, [each.products] if each.products else []) for each in counts]
    if len(counts) > 1:
        sums.append(("all", total))
    for subject, products in sums:
        pages = estimate_pages(products, page_size, service)
        with_details = pages.cost_usd + estimate_lookups(sum(products), service).cost_usd
        costs = (f"${pages.cost_usd:,.2f}", f"${with_details:,.2f}")
        rows.append((subject, f"{pages.products:,}", f"{pages.requests:,}", *costs))
    for row, count in enumerate(counts, 1):
        if count.products is None:
            rows[row] = (count.subject, *("?",) * 4)
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    lines = [
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows
    ]
    time = estimate_pages(total, page_size, service).time if total else None
    if time:
        lines.append(f"Pages: {time}.")
    for count in counts:
        if count.products is None:
            lines.append(f"{count.subject}: the number of its products is not known.")
        elif not count.products:
            lines.append(f"{count.subject}: no products. Check its spelling and its filters.")
    return lines


def _whole_catalogs(
    client: BlockingClient, keys: list[str], of_shops: Iterable[CatalogState]
) -> list[_Count]:
    """Count the products of named catalogs and those of shops; of all catalogs if there are none.

    What a shop says of a catalog is more than a count, and takes no further request.
    """
    from octogen_dagster.api.search import SearchFilters
    from octogen_dagster.errors import OctogenNotFoundError

    counts = {state.catalog: _Count(state.catalog, state.product_count) for state in of_shops}
    left = [key for key in keys if key not in counts or counts[key].products is None]
    if counts and not left:
        return [*counts.values()]
    try:
        listed = client.list_catalog_states().catalogs
    except OctogenNotFoundError:
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
    counts |= {key: _Count(key, granted[key]) for key in left or granted}
    return [*counts.values()]


def _of_shops(client: BlockingClient, hosts: Sequence[str]) -> list[CatalogState]:
    from octogen_dagster.api.catalog_sources import ShopCatalogs, fetch_catalogs

    listed = fetch_catalogs(client, ShopCatalogs(hosts), reads_all=False)
    for line in listed.warnings:
        click.echo(line, err=True)
    return list(listed.catalogs)


def _counted(
    client: BlockingClient, subject: str, search: SearchFilters, keys: Sequence[str]
) -> _Count:
    return _Count(subject, client.count_products(search, keys), is_lower_bound=True)


def _search(**filters: Any) -> SearchFilters:
    """Return the filters of a search; say by the names of options what is wrong with them."""
    from pydantic import ValidationError

    from octogen_dagster.api.search import SearchFilters

    try:
        with warnings.catch_warnings(record=True) as caught:
            search = SearchFilters(**filters)
    except ValidationError as error:
        mistakes = [(each["loc"][:1], each["msg"]) for each in error.errors()]
        texts = [
            "".join(f"--{str(name).replace('_', '-').replace('facets', 'facet')}: " for name in at)
            + text.removeprefix("Value error, ")
            for at, text in mistakes
        ]
        raise ValueError("\n".join(texts)) from None
    for warning in caught:
        click.echo(warning.message, err=True)
    return search


def _facets(texts: Iterable[str]) -> list[dict[str, Any]]:
    """Parse NAME=VALUE options; the values of one name are alternatives."""
    values: dict[str, list[str]] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not (name and equals and value):
            raise ValueError(f"--facet {text!r} has no name and value: write it as gender=female")
        values.setdefault(name, []).append(value)
    return [{"name": name, "values": each} for name, each in values.items()]
