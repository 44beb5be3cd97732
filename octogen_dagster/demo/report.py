"""What the demo prints: tables of its snapshots and linked datasets, and where to look."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table

from octogen_dagster.demo.definitions import changes, products, sweaters

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import dagster as dg

    from octogen_dagster.demo.day import Day

_COUNTS = ("appeared", "disappeared", "changed")


def snapshots_table(catalog_keys: Iterable[str], days: Sequence[Day]) -> Table:
    """The rows of each catalog on each day, and what changed on the last."""
    # Narrow headers: the table fits into 80 columns.
    table = Table("rows of", *(f"day {number + 1}" for number in range(len(days))), *_COUNTS)
    table.columns[0].no_wrap = True
    for column in table.columns[1:]:
        column.justify = "right"
    for key in catalog_keys:
        rows = [day.rows((products.key, key)) for day in days]
        counts = [days[-1].number((changes.key, key), f"octogen/{name}") for name in _COUNTS]
        table.add_row(key, *("-" if each is None else f"{each:,}" for each in rows + counts))
    return table


def links_table(asset: dg.AssetKey, listings: Iterable[str], day: Day) -> Table:
    """The linked dataset of each listing."""
    table = Table("listing", "linked table", "state")
    table.columns[1].overflow = "fold"
    for listing in listings:
        table.add_row(
            listing.rpartition(":")[2],
            day.text((asset, listing), "dagster/table_name") or "-",
            day.text((asset, listing), "octogen/state") or "-",
        )
    return table


def check_lines(days: Iterable[Day]) -> list[str]:
    """How many checks passed, and a line for each that failed."""
    results = [check for day in days for check in day.checks]
    failed = [check for check in results if not check.passed]
    return [
        f"Checks: {len(results) - len(failed)} passed, {len(failed)} failed.",
        *(f"  {check.check_name}: {check.description}" for check in failed),
    ]


def places(url: str) -> list[tuple[str, str]]:
    """Pages of the UI, and what is to be seen there, in the order to visit them."""
    assets = f"{url}/assets"
    return [
        (f"{url}/asset-groups", "the assets, and which follow which"),
        (
            f"{assets}/{products.key.to_user_string()}?view=partitions",
            "products: a file for each catalog",
        ),
        (
            f"{assets}/{products.key.to_user_string()}?view=checks",
            "their checks: on day 2 one price is wrong, on purpose",
        ),
        (
            f"{assets}/{changes.key.to_user_string()}?view=partitions",
            "changes: what came, went and moved on day 2",
        ),
        (
            f"{assets}/{sweaters.key.to_user_string()}?view=overview",
            "a search with a schedule: the arrow beside Materialize opens its launchpad",
        ),
        (f"{url}/automation", "the sensors and the schedule that start everything"),
    ]
