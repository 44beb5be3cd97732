from __future__ import annotations

import math
from typing import Any

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from octogen_dagster.api.catalog_sources import NamedCatalogs
from octogen_dagster.api.search import ProductSearch
from octogen_dagster.frames.pushdown import Pushdown
from octogen_dagster.sandbox.server import Sandbox
from tests.frames.test_scan import scan, searches

price, key = pl.col("current_price"), pl.col("catalog_key")


@pytest.mark.parametrize(
    ("predicate", "expected"),
    [
        (price > 5, Pushdown(price_min=5)),
        (price >= 5.5, Pushdown(price_min=5.5)),
        (pl.lit(5) < price, Pushdown(price_min=5)),
        (price < 9, Pushdown(price_max=9)),
        (pl.lit(9) >= price, Pushdown(price_max=9)),
        (price == 7, Pushdown(price_min=7, price_max=7)),
        (price.is_between(2, 3), Pushdown(price_min=2, price_max=3)),
        ((price > 2) & (price < 9) & (price > 4), Pushdown(price_min=4, price_max=9)),
        (key == "acme", Pushdown(catalogs=frozenset({"acme"}))),
        (key.is_in(["acme", "zen"]), Pushdown(catalogs=frozenset({"acme", "zen"}))),
        (key.is_in(["acme", "zen"]) & (key == "zen"), Pushdown(catalogs=frozenset({"zen"}))),
        ((key == "a") & (key == "b"), Pushdown(catalogs=frozenset())),
        ((price > 2) & (pl.col("title") == "x"), Pushdown(price_min=2)),
        # Not pushed: what the service could not answer exactly, or at all.
        ((price > 2) | (key == "acme"), Pushdown()),
        (~(price > 2), Pushdown()),
        (price != 2, Pushdown()),
        (key != "acme", Pushdown()),
        (price * 2 > 5, Pushdown()),
        (price > pl.col("original_price"), Pushdown()),
        (price > math.inf, Pushdown()),
        (price > -1, Pushdown()),
        (price.is_null(), Pushdown()),
        (pl.col("brand").struct.field("name") == "Acme", Pushdown()),
    ],
)
def test_what_is_pushed(predicate: pl.Expr, expected: Pushdown) -> None:
    assert Pushdown.of(predicate) == expected


amounts = st.sampled_from([0, 12, 19.99, 50, 80.5, 150, 400, -3, 10**6])
keys = st.sampled_from(["northpeak", "strada", "voltaic", "nowhere"])
predicates = st.recursive(
    st.one_of(
        st.tuples(st.sampled_from(["gt", "ge", "lt", "le", "eq"]), amounts).map(
            lambda pair: getattr(price, pair[0])(pair[1])
        ),
        st.builds(
            price.is_between,
            amounts,
            amounts,
            st.sampled_from(["both", "left", "right", "none"]),
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


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(query=steps, limit=limits)
def test_a_pushed_query_equals_the_unpushed_one(
    catalogs: Sandbox, query: list[tuple[str, Any]], limit: dict[str, Any]
) -> None:
    source = NamedCatalogs(keys=["northpeak", "strada", "voltaic"])
    pushed = scan(catalogs, ProductSearch(**limit), concurrency=1, catalogs=source)
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
