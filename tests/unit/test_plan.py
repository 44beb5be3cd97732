from __future__ import annotations

from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, cast

import polars as pl
import pytest

from octogen_dagster.api.blocking import BlockingClient
from octogen_dagster.api.catalog_sources import CatalogService
from octogen_dagster.api.catalog_states import CatalogState
from octogen_dagster.api.credentials import ApiKey
from octogen_dagster.api.search import ProductSearch
from octogen_dagster.errors import OctogenConnectionError, OctogenError, Persistence
from octogen_dagster.reading.plan import SnapshotBrands, plan_walks, split_large
from octogen_dagster.reading.pushdown import Pushdown
from octogen_dagster.reading.walk import Walk

STAMP = datetime(2026, 11, 25, tzinfo=UTC)
GRANTED = [
    CatalogState(key, product_count=10, last_indexed_at=STAMP if stamped else None)
    for key, stamped in [("acme", True), ("strada", False), ("zen", True)]
]
BRANDS = [f"Brand {number}" for number in range(12)]


class NoCountError(OctogenError):
    """A service that has no counts."""

    persistence = Persistence.PERMANENT


class Counting:
    """A client of which only the count is needed; without one it has none."""

    def __init__(
        self, *, counts: bool = True, generation: str = "seed", fails: bool = False
    ) -> None:
        self.counts = counts
        self.fails = fails
        self.service = SimpleNamespace(generation=generation)
        self.counted: list[tuple[Any, list[str]]] = []

    def count_products(self, filters: Any, catalogs: list[str]) -> int:
        self.counted.append((filters, catalogs))
        if self.fails:
            raise OctogenConnectionError("The count of products did not arrive.")
        if not self.counts:
            raise NoCountError("The count of products cannot be had.")
        return 1


def client(**settings: Any) -> BlockingClient:
    return cast("BlockingClient", Counting(**settings))


def service(**settings: Any) -> CatalogService:
    return CatalogService(ApiKey("octo_live_test"), "http://127.0.0.1:1/v1", **settings)


def plan(
    search: ProductSearch,
    pushdown: Pushdown | None = None,
    listed: list[CatalogState] | None = GRANTED,
    **settings: Any,
) -> list[Walk]:
    return plan_walks(
        search, client(**settings), listed, pushdown or Pushdown(), source_is_granted=True
    )


def keys(walks: list[Walk]) -> list[list[str]]:
    return [[state.catalog for state in walk.catalogs] for walk in walks]


FILTERED = {"price_min": 5}


@pytest.mark.parametrize(
    ("search", "settings", "expected"),
    [
        ({}, {}, [["acme"], ["strada"], ["zen"]]),
        ({"catalogs": ["zen", "unlisted", "acme"]}, {}, [["zen"], ["unlisted"], ["acme"]]),
        ({"max_products": 5}, {}, [[]]),
        ({}, {"listed": None}, [[]]),
        ({}, {"listed": []}, []),
        (FILTERED, {}, [["acme"], ["strada"], ["zen"]]),  # it has stamps, so it is of the seed
        (FILTERED, {"generation": "current"}, [["acme", "strada", "zen"]]),
        ({**FILTERED, "catalogs": ["a", "b"]}, {"listed": None}, [["a", "b"]]),
        ({**FILTERED, "catalogs": ["a", "b"]}, {"listed": None, "counts": False}, [["a"], ["b"]]),
        ({**FILTERED, "catalogs": ["a"]}, {"listed": None}, [["a"]]),
    ],
)
def test_the_catalogs_of_a_search(
    search: dict[str, Any], settings: dict[str, Any], expected: list[list[str]]
) -> None:
    walks = plan(ProductSearch(**search), **settings)
    assert keys(walks) == expected
    for walk in walks:
        named = [walk.request.catalog] if walk.request.catalog else walk.request.catalogs
        assert named == [state.catalog for state in walk.catalogs]


@pytest.mark.parametrize("search", [ProductSearch(), ProductSearch(catalogs=["acme", "zen"])])
def test_catalogs_that_a_query_does_not_need_are_not_read(search: ProductSearch) -> None:
    assert keys(plan(search, Pushdown(catalogs=frozenset({"ZEN", "nowhere"})))) == [["zen"]]
    assert plan(search, Pushdown(catalogs=frozenset())) == []


WHOLE = ProductSearch(page_size=1)


def catalogs(**pages: int) -> list[Walk]:
    """Catalogs of so many pages, all of whose brands are known."""
    states = [
        CatalogState(
            key, product_count=count, brands=tuple((each, count // len(BRANDS)) for each in BRANDS)
        )
        for key, count in pages.items()
    ]
    return plan(WHOLE, listed=states)


def split(walks: list[Walk], latest: pl.LazyFrame | None = None, **settings: Any) -> list[int]:
    """How many walks read each catalog."""
    counts = settings.pop("counts", True)
    brands = SnapshotBrands(lambda: latest, lambda _line: None)
    found = split_large(
        walks,
        WHOLE,
        service(**settings),
        client(counts=counts),
        brands=brands,
        log=lambda _line: None,
    )
    return [len(each) for each in found]


@pytest.mark.parametrize(
    ("pages", "walks"),
    [
        ({"acme": 500}, [8]),  # 12 brands and the remainder, and as many for each thread
        ({"acme": 100}, [5]),  # 5 %: each may have one page that is not full
        ({"acme": 59}, [2]),
        ({"acme": 49}, [1]),
        ({"acme": 100, **{f"other {number}": 100 for number in range(7)}}, [1] * 8),
        ({"acme": 900, **{f"other {number}": 100 for number in range(7)}}, [8] + [1] * 7),
        ({"acme": 110, **{f"other {number}": 100 for number in range(6)}}, [1] * 7),
        ({"acme": 300, **{f"other {number}": 100 for number in range(5)}}, [8] + [1] * 5),
    ],
)
def test_a_catalog_is_split_if_it_would_be_read_when_all_others_have_ended(
    pages: dict[str, int], walks: list[int]
) -> None:
    assert split(catalogs(**pages)) == walks


def test_a_retry_plans_the_same_parts_whatever_the_source_counts_by_then() -> None:
    latest = pl.LazyFrame(
        [{"catalog_key": "acme", "brand": {"name": each}} for each in BRANDS] * 50
    )
    brands = SnapshotBrands(lambda: latest, lambda _line: None)
    bodies = [
        [
            walk.request.body()
            for walks in split_large(
                catalogs(acme=count), WHOLE, service(), client(), brands=brands, log=print
            )
            for walk in walks
        ]
        for count in (560, 600, 700)
    ]
    assert len(bodies[0]) > 2
    assert bodies[0] == bodies[1] == bodies[2]
