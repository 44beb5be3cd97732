"""The command `octogen-dagster estimate`: a free estimate of what a read costs."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import click

from octogen_dagster.cli.errors import reporting_errors
from octogen_dagster.cli.options import CONTEXT_SETTINGS, Command
from octogen_dagster.printable import printable

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

    from octogen_dagster.api.catalog_sources import CatalogService
    from octogen_dagster.api.counts import Count
    from octogen_dagster.api.search import SearchFilters

_IS_LOWER_BOUND = (
    "Products without a category are not counted, so this is a lower bound. To count all products "
    "in a shop, pass --host."
)
_IS_NO_BOUND = (
    "The estimate ignores the search keywords and counts only products that have a category. The "
    "actual cost can be higher or lower."
)


@click.command(cls=Command, context_settings=CONTEXT_SETTINGS)
@click.option("--catalog", "catalogs", multiple=True, help="Catalog key. Can be repeated.")
@click.option("--host", "hosts", multiple=True, help="Shop host. Can be repeated.")
@click.option("--q", default=None, help="Search keywords.")
@click.option(
    "--facet",
    "facets",
    multiple=True,
    metavar="NAME=VALUE",
    help="Facet filter, such as gender=female. Can be repeated.",
)
@click.option("--price-min", type=float, default=None, help="Lowest current price.")
@click.option("--price-max", type=float, default=None, help="Highest current price.")
@reporting_errors
def estimate(
    *,
    catalogs: Sequence[str],
    hosts: Sequence[str],
    facets: Sequence[str],
    **filters: Any,
) -> None:
    """Estimate the products, pages, cost and duration of a read.

    By default, the estimate covers all catalogs. The estimate is free, because it requires no
    searches or lookups. The API key and OCTOGEN_BASE_URL are read from the environment.

    With --host, Octogen reports the number of products in each catalog. With --catalog or search
    filters, Octogen counts only products that have a category, so the estimate is a lower bound.

    The exit status is 0 on success, 1 on failure and 2 for bad input.
    """
    from octogen_dagster.api.blocking import BlockingClient
    from octogen_dagster.api.catalog_sources import CatalogService
    from octogen_dagster.api.counts import count_read
    from octogen_dagster.api.credentials import configured_base_url

    search = _search(facets=_facets(facets), **filters)
    service = CatalogService(base_url=configured_base_url())
    with BlockingClient(service) as client:
        counted = count_read(client, search, catalogs, hosts)
    for warning in counted.warnings:
        click.echo(printable(warning), err=True)
    if not counted.counts:
        click.echo("The shops have no catalogs.")
        return
    counts = [each._replace(subject=printable(each.subject)) for each in counted.counts]
    click.echo("\n".join(_table(service, counts)))
    if any(each.is_lower_bound for each in counted.counts):
        click.echo(_IS_NO_BOUND if search.has_keywords else _IS_LOWER_BOUND)
    for host, of_host in counted.several.items():
        click.echo(
            f"{printable(host)} has {len(of_host)} catalogs. One of these catalogs might "
            "contain products from many shops. To read only some of the catalogs, pass their keys: "
            f"ShopCatalogs(hosts=[{host!r}], catalogs=[{of_host[0].catalog!r}])."
        )


def _table(service: CatalogService, counts: Sequence[Count]) -> list[str]:
    """Return the lines to print: a row for each count, a row for the total, and notes."""
    from octogen_dagster.api.estimate import estimate_lookups, estimate_pages
    from octogen_dagster.api.search import MAX_PAGE_SIZE

    rows = [("", "products", "pages", "cost", "with details")]
    total = [each.products for each in counts if each.products]
    sums = [(each.subject, [each.products] if each.products else []) for each in counts]
    if len(counts) > 1:
        sums.append(("all", total))
    for subject, products in sums:
        pages = estimate_pages(products, MAX_PAGE_SIZE, service)
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
    time = estimate_pages(total, MAX_PAGE_SIZE, service).time if total else None
    if time:
        lines.append(f"Pages: {time}.")
    for count in counts:
        if count.products is None:
            lines.append(f"{count.subject}: the number of products is unknown.")
        elif not count.products:
            lines.append(
                f"{count.subject}: no products were found. Check the spelling and the filters."
            )
    return lines


def _search(**filters: Any) -> SearchFilters:
    """Return the validated search filters. Error messages name the command-line options."""
    from pydantic import ValidationError

    from octogen_dagster.api.search import SearchFilters

    try:
        with warnings.catch_warnings(record=True) as caught:
            search = SearchFilters(**filters)
    except ValidationError as error:
        raise ValueError("\n".join(map(_option_error, error.errors()))) from None
    for warning in caught:
        click.echo(warning.message, err=True)
    return search


def _option_error(mistake: ErrorDetails) -> str:
    text = str(mistake.get("ctx", {}).get("error", mistake["msg"]))
    if not mistake["loc"]:
        return text
    name = str(mistake["loc"][0]).replace("facets", "facet").replace("_", "-")
    return f"--{name}: {text}"


def _facets(texts: Iterable[str]) -> list[dict[str, Any]]:
    """Parse `--facet` options. Options with the same facet name become one filter."""
    values: dict[str, list[str]] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not (name and equals and value):
            raise ValueError(
                f"--facet {text!r} must have the form NAME=VALUE, such as gender=female."
            )
        values.setdefault(name, []).append(value)
    return [{"name": name, "values": each} for name, each in values.items()]
