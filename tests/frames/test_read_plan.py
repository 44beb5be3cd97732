"""What a plan says of its read before it begins."""

from __future__ import annotations

from datetime import datetime, timezone

import pytest

from octogen_dagster.frames.catalog_read import CatalogRead
from octogen_dagster.frames.plan import PlannedCatalog
from octogen_dagster.frames.read_plan import ReadPlan
from octogen_dagster.frames.search import ProductSearch
from tests.frames.scripted import connection_at

NOWHERE = connection_at("http://127.0.0.1:1/v1")
NOW = datetime(2026, 11, 25, tzinfo=timezone.utc)


def plan(
    *counts: int | None,
    search: ProductSearch | None = None,
    saved_pages: int = 0,
    rebuilt: bool = False,
) -> ReadPlan:
    search = search or ProductSearch()
    reads = [
        CatalogRead(
            PlannedCatalog(f"c{number}", search.request(f"c{number}"), product_count=count),
            saved_pages=saved_pages,
        )
        for number, count in enumerate(counts)
    ]
    return ReadPlan(search, reads, NOW, rebuilt=rebuilt)


@pytest.mark.parametrize(
    ("planned", "line"),
    [
        (plan(250), "Catalog 'c0': 250 products in 3 pages, $0.04."),
        (plan(250, 100), "2 catalogs: 350 products in 4 pages, $0.06."),
        (
            plan(1_000, 500, saved_pages=2),
            "2 catalogs: 1,500 products in 11 pages, $0.15; 4 more pages are saved.",
        ),
        (
            plan(250, search=ProductSearch(page_size=10)),
            "Catalog 'c0': 250 products in 25 pages, $0.35.",
        ),
    ],
)
def test_a_read_of_known_size_says_what_it_takes(planned: ReadPlan, line: str) -> None:
    assert planned.estimate(NOWHERE) == line


@pytest.mark.parametrize(
    "planned",
    [
        plan(),
        plan(250, None),
        plan(250, rebuilt=True),
        plan(250, search=ProductSearch(q="jacket")),
        plan(250, search=ProductSearch(max_products=10)),
    ],
)
def test_any_other_read_says_nothing(planned: ReadPlan) -> None:
    assert planned.estimate(NOWHERE) is None
