"""Which catalogs a query needs, and in how many walks each is read."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import polars as pl
import pytest

from octogen_dagster.api.blocking import BlockingClient
from octogen_dagster.api.catalog_sources import CatalogService
from octogen_dagster.api.catalog_states import CatalogState
from octogen_dagster.api.credentials import ApiKey
from octogen_dagster.api.search import ProductSearch
from octogen_dagster.reading.plan import SnapshotBrands, plan_walks, split_large
from octogen_dagster.reading.pushdown import Pushdown
from octogen_dagster.reading.walk import Walk

BRANDS = [f"Brand {number}" for number in range(12)]
WHOLE = ProductSearch(page_size=1)
# Of a client only the count is needed, which a service that splits catalogs has.
COUNTING: Any = SimpleNamespace(count_products=lambda *_: 1)
CLIENT = cast("BlockingClient", COUNTING)


def plan(
    listed: list[CatalogState], search: ProductSearch = WHOLE, *wanted: frozenset[str]
) -> list[Walk]:
    pushdown = Pushdown(catalogs=wanted[0]) if wanted else Pushdown()
    return plan_walks(search, CLIENT, listed, pushdown, source_is_granted=True)


@pytest.mark.parametrize("search", [WHOLE, ProductSearch(catalogs=["acme", "zen"])])
def test_catalogs_that_a_query_does_not_need_are_not_read(search: ProductSearch) -> None:
    listed = [CatalogState(key) for key in ("acme", "strada", "zen")]
    (walk,) = plan(listed, search, frozenset({"ZEN", "nowhere"}))
    assert [state.catalog for state in walk.catalogs] == ["zen"]
    assert plan(listed, search, frozenset()) == []


def split(pages: dict[str, int], latest: pl.LazyFrame | None = None) -> list[list[Walk]]:
    """The walks of catalogs of so many pages, all of whose brands are known."""
    states = [
        CatalogState(
            key, product_count=count, brands=tuple((each, count // len(BRANDS)) for each in BRANDS)
        )
        for key, count in pages.items()
    ]
    service = CatalogService(ApiKey("octo_live_test"), "http://127.0.0.1:1/v1")
    brands = SnapshotBrands(lambda: latest, lambda _line: None)
    return split_large(plan(states), WHOLE, service, CLIENT, brands=brands, log=lambda _line: None)


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
    assert [len(each) for each in split(pages)] == walks


def test_a_retry_plans_the_same_parts_whatever_the_source_counts_by_then() -> None:
    rows = [{"catalog_key": "acme", "brand": {"name": each}} for each in BRANDS] * 50
    planned = [split({"acme": count}, pl.LazyFrame(rows)) for count in (560, 600, 700)]
    first, *others = ([walk.request.body() for walk in walks] for [walks] in planned)
    assert len(first) > 2
    assert others == [first, first]
