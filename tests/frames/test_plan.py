"""The catalogs that a search reads, and the requests for them."""

from __future__ import annotations

from datetime import datetime, timezone

import pytest

from octogen_dagster.api.blocking import BlockingClient
from octogen_dagster.api.catalog_states import CatalogState
from octogen_dagster.api.search import ProductSearch
from octogen_dagster.frames.plan import PlannedCatalog, list_for, plan_catalogs
from octogen_dagster.frames.pushdown import Pushdown
from octogen_dagster.sandbox.server import Sandbox
from tests.frames.scripted import connection_at
from tests.frames.test_consistency import connection_to

NOWHERE = connection_at("http://127.0.0.1:1/v1")
ALL = Pushdown()
STAMP = datetime(2026, 11, 25, tzinfo=timezone.utc)
GRANTED = [
    CatalogState(key, product_count=10, last_indexed_at=STAMP if stamped else None)
    for key, stamped in [("acme", True), ("strada", False), ("zen", True)]
]


def keys(catalogs: list[PlannedCatalog]) -> list[str | None]:
    return [planned.catalog for planned in catalogs]


def plan(
    search: ProductSearch,
    pushdown: Pushdown = ALL,
    granted: list[CatalogState] | None = GRANTED,
) -> list[PlannedCatalog]:
    return plan_catalogs(search, NOWHERE, BlockingClient(NOWHERE), lambda: granted, pushdown)


def test_a_search_that_names_no_catalog_reads_every_granted_one() -> None:
    planned = plan(ProductSearch(q="jacket"))
    assert keys(planned) == ["acme", "strada", "zen"]
    assert [each.request.catalog for each in planned] == ["acme", "strada", "zen"]
    assert {each.request.q for each in planned} == {"jacket"}
    assert [each.last_indexed_at for each in planned] == [STAMP, None, STAMP]


def test_named_catalogs_are_read_in_their_order() -> None:
    planned = plan(ProductSearch(catalogs=["zen", "unlisted", "acme"]))
    assert keys(planned) == ["zen", "unlisted", "acme"]
    assert [each.last_indexed_at for each in planned] == [STAMP, None, STAMP]


def test_a_capped_search_that_names_no_catalog_is_one_request_for_all() -> None:
    (planned,) = plan(ProductSearch(max_products=5))
    assert planned == PlannedCatalog(None, ProductSearch(max_products=5).request(None), None)
    assert planned.subject == "The search"


def test_a_service_without_a_list_is_searched_as_a_whole() -> None:
    assert keys(plan(ProductSearch(), granted=None)) == [None]


def test_without_granted_catalogs_nothing_is_read() -> None:
    assert plan(ProductSearch(), granted=[]) == []


@pytest.mark.parametrize("search", [ProductSearch(), ProductSearch(catalogs=["acme", "zen"])])
def test_catalogs_that_a_query_does_not_need_are_not_read(search: ProductSearch) -> None:
    assert keys(plan(search, Pushdown(catalogs=frozenset({"ZEN", "nowhere"})))) == ["zen"]
    assert plan(search, Pushdown(catalogs=frozenset())) == []


def test_a_search_of_all_catalogs_at_once_is_not_narrowed() -> None:
    pushdown = Pushdown(catalogs=frozenset({"zen"}))
    assert keys(plan(ProductSearch(max_products=5), pushdown)) == [None]


@pytest.mark.parametrize(
    ("search", "stamped", "listed"),
    [
        (ProductSearch(), False, 1),
        (ProductSearch(catalogs=["strada"]), False, 0),
        (ProductSearch(catalogs=["strada"]), True, 1),
        (ProductSearch(max_products=5), False, 0),
    ],
)
def test_the_service_is_asked_for_its_list_only_where_it_is_needed(
    sandbox: Sandbox, search: ProductSearch, stamped: bool, listed: int
) -> None:
    connection = connection_to(sandbox)
    with BlockingClient(connection) as client:
        planned = plan_catalogs(search, connection, client, None, ALL, stamped=stamped)
    assert [request.path for request in sandbox.requests] == ["/catalogs"] * listed
    assert all(each.last_indexed_at for each in planned) == bool(listed)


def test_the_granted_catalogs_of_both_generations(catalogs: Sandbox) -> None:
    connection = connection_to(catalogs)
    search = ProductSearch(q="jacket")
    listed = list_for(search, connection, BlockingClient(connection))
    if listed is not None:  # the seed generation
        assert {each.catalog for each in listed} == {"northpeak", "strada", "voltaic"}
    planned = plan_catalogs(search, connection, BlockingClient(connection), None, ALL)
    assert len(planned) == (1 if listed is None else 3)


def test_the_subject_names_the_catalog() -> None:
    assert plan(ProductSearch(catalogs=["acme"]))[0].subject == "Catalog 'acme'"


def test_a_source_that_counts_but_does_not_say_when_it_indexed_gives_a_count_and_no_time() -> None:
    counted = [CatalogState("acme", product_count=7, computed_at=STAMP)]
    (planned,) = plan(ProductSearch(), granted=counted)
    assert planned.product_count == 7
    assert planned.last_indexed_at is None


def test_the_count_of_a_granted_catalog_is_known_and_that_of_an_unlisted_one_is_not() -> None:
    acme, unlisted = plan(ProductSearch(catalogs=["acme", "unlisted"]))
    assert acme.product_count == 10
    assert unlisted.product_count is None
