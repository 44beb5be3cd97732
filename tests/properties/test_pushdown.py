"""What a query pushes down to the service does not change its result."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from octogen_dagster import NamedCatalogs, ProductSearch
from octogen_dagster.sandbox.server import Sandbox
from tests.results import scan

SOURCE = NamedCatalogs(keys=["northpeak", "strada", "voltaic"])
price, key = pl.col("current_price"), pl.col("catalog_key")


@pytest.fixture(scope="module", params=["seed", "current"])
def catalogs(request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    shops = {"northpeak": 230, "strada": 120, "voltaic": 7}
    with Sandbox(catalogs=shops, generation=request.param) as sandbox:
        yield sandbox


def searches(sandbox: Sandbox, since: int) -> list[dict[str, Any]]:
    return [
        request.body or {}
        for request in sandbox.requests[since:]
        if request.path.endswith("/products/search")
    ]


amounts = st.sampled_from([0, 12, 19.99, 50, 80.5, 150, 400, -3, 10**6])
keys = st.sampled_from(["northpeak", "strada", "voltaic", "nowhere"])
predicates = st.recursive(
    st.one_of(
        st.tuples(st.sampled_from(["gt", "ge", "lt", "le", "eq"]), amounts).map(
            lambda pair: getattr(price, pair[0])(pair[1])
        ),
        st.builds(
            price.is_between, amounts, amounts, st.sampled_from(["both", "left", "right", "none"])
        ),
        keys.map(lambda value: key == value),
        st.lists(keys, max_size=3).map(key.is_in),
        st.just(pl.col("in_stock")),
        st.just(pl.col("title").str.contains("a")),
        st.just(price.is_null()),
    ),
    lambda inner: st.one_of(
        st.tuples(inner, inner).map(lambda pair: pair[0] & pair[1]),
        st.tuples(inner, inner).map(lambda pair: pair[0] | pair[1]),
        inner.map(lambda predicate: ~predicate),
    ),
    max_leaves=5,
)
steps = st.lists(
    st.one_of(
        predicates.map(lambda predicate: ("filter", predicate)),
        st.integers(0, 400).map(lambda rows: ("head", rows)),
        st.sampled_from(
            [["uuid"], ["title", "current_price", "catalog_key", "in_stock"], ["images", "brand"]]
        ).map(lambda columns: ("select", columns)),
    ),
    max_size=4,
)
limits = st.fixed_dictionaries(
    {},
    optional={
        "catalogs": st.sampled_from([["northpeak"], ["voltaic", "strada"]]),
        "max_products": st.sampled_from([1, 60, 10**6]),
        "price_min": st.sampled_from([0, 20]),
        "price_max": st.sampled_from([60, 500]),
        "q": st.just("a"),
    },
)


def apply(frame: pl.LazyFrame, query: list[tuple[str, Any]]) -> pl.LazyFrame:
    for verb, argument in query:
        known = set(frame.collect_schema())
        if verb == "filter" and not set(argument.meta.root_names()) <= known:
            continue
        if verb == "select" and not set(argument) <= known:
            continue
        frame = getattr(frame, verb)(argument)
    return frame


@pytest.mark.long
@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(query=steps, limit=limits)
def test_a_pushed_query_equals_the_unpushed_one(
    catalogs: Sandbox, query: list[tuple[str, Any]], limit: dict[str, Any]
) -> None:
    pushed = scan(catalogs, ProductSearch(**limit), concurrency=1, catalog_source=SOURCE)
    # The same rows as a frame in memory, where nothing can be pushed.
    unpushed = pushed.collect().lazy()

    got = apply(pushed, query).collect()
    expected = apply(unpushed, query).collect()
    assert_frame_equal(
        got.drop("fetched_at", strict=False), expected.drop("fetched_at", strict=False)
    )


def test_the_service_is_asked_the_narrower_question(catalogs: Sandbox) -> None:
    before = len(catalogs.requests)
    query = scan(catalogs, ProductSearch(catalogs=["northpeak", "strada"], price_min=5))
    query.filter((price > 20) & (price <= 60) & (key == "strada")).collect()

    asked = searches(catalogs, before)
    assert {body["price_min"] for body in asked} == {20.0}
    assert {body["price_max"] for body in asked} == {60.0}
    assert {body.get("catalog", "strada") for body in asked} == {"strada"}


def test_a_filter_that_leaves_nothing_asks_nothing(catalogs: Sandbox) -> None:
    before = len(catalogs.requests)
    query = scan(catalogs, ProductSearch(catalogs=["northpeak"], price_max=10))
    assert query.filter(price > 20).collect().is_empty()
    assert searches(catalogs, before) == []


def test_a_capped_search_is_not_narrowed(catalogs: Sandbox) -> None:
    before = len(catalogs.requests)
    query = scan(catalogs, ProductSearch(catalogs=["northpeak"], max_products=10))
    query.filter(price > 20).collect()
    assert all("price_min" not in body for body in searches(catalogs, before))
