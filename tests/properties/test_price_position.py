"""A price position is what a person works out, with a null, a zero or a repeat anywhere."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import polars as pl
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from octogen_dagster.frames.columns import TIME
from octogen_dagster.position.table import AT, NOW, lasting_at, price_position
from octogen_dagster.schemas import HISTORY_SCHEMA
from tests.prices_model import position

Row = dict[str, Any]
BEGUN = datetime(2026, 11, 1, tzinfo=UTC)
URLS = [
    *("https://www.acme.example/p?id=1", "http://ACME.example/p/?id=1&utm_source=x#top"),
    *("https://acme.example/p?id=2", "https://zen.example/q", "https://zen.example:443/q/"),
]
PRICES = [None, 0.0, float("nan"), 80.0, 90.0, 90.0, 110.0]
CURRENCIES = ["EUR", "EUR", "EUR", "EUR", "eur", "JPY", None]
products = st.builds(
    lambda **values: values,
    uuid=st.sampled_from(["u0", "u1", "u2", "u3"]),
    lasted=st.sampled_from([(1, None), (1, None), (2, None), (1, 2), (1, 3), (2, 3)]),
    product_url=st.sampled_from([*URLS, None]),
    title=st.sampled_from(["Dress", None]),
    current_price=st.sampled_from(PRICES),
    currency=st.sampled_from(CURRENCIES),
    in_stock=st.sampled_from([True, True, False, None]),
    is_active=st.sampled_from([True, True, False, None]),
)
own_rows = st.builds(
    lambda **values: values,
    sku=st.sampled_from(["a", "a", "a", "b"]),
    product_url=st.sampled_from([*URLS, "https://zen.example/none", "nothing", None]),
    price=st.sampled_from([*PRICES, 85.0, 100.0]),
    currency=st.sampled_from(CURRENCIES),
)
OWN_SCHEMA = {
    **{"sku": pl.String, "product_url": pl.String},
    **{"price": pl.Float64, "currency": pl.String},
}


THREE_PAGES = (URLS[0], URLS[2], URLS[3])
THERE = {"lasted": (1, None), "title": None, "in_stock": True, "is_active": None}


@pytest.mark.slow
@settings(max_examples=100)
@example(
    [
        {**THERE, "uuid": url, "product_url": url, "current_price": price, "currency": "EUR"}
        for url, price in zip(THREE_PAGES, (80.0, 90.0, 110.0), strict=True)
    ],
    [{"sku": "a", "product_url": url, "price": 100.0, "currency": "EUR"} for url in THREE_PAGES],
)
@given(st.lists(products, max_size=7), st.lists(own_rows, min_size=1, max_size=7))
def test_a_position_is_what_a_person_works_out(found: list[Row], own: list[Row]) -> None:
    """Each product is a row of a history, and several histories may have the same one."""
    named = []
    for each in found:
        begun, ended = (day and BEGUN.replace(day=day) for day in each["lasted"])
        row = {name: value for name, value in each.items() if name != "lasted"}
        named.append({**row, "catalog_key": "acme", "valid_from": begun, "valid_to": ended})
    history = pl.DataFrame(named, schema={**HISTORY_SCHEMA})
    table = pl.DataFrame(own, schema=OWN_SCHEMA)
    result = price_position(history.lazy(), table)
    assert result.select(table.columns).equals(table)
    assert result["cheapest_url"].is_null().equals(result["cheapest_price"].is_null())
    wanted = position(named, own)
    since = [each.pop("competitor_since") for each in wanted]
    assert result["competitor_since"].to_list() == since
    assert result.select(list(wanted[0])).to_dicts() == [pytest.approx(each) for each in wanted]


hours = st.integers(0, 6).map(lambda hour: BEGUN.replace(hour=hour))
spans = st.lists(hours, min_size=2, max_size=2, unique=True).map(sorted)
lasting_rows = st.builds(
    lambda sku, span, lasts: {"sku": sku, "valid_from": span[0], "valid_to": lasts or span[1]},
    st.sampled_from(["a", "b", None]),
    spans,
    st.sampled_from([None, None, NOW]),
)
moments = st.fixed_dictionaries(
    {"sku": st.sampled_from(["a", "b", "c", None]), AT: hours | st.just(NOW)}
)


@pytest.mark.slow
@given(st.lists(lasting_rows, max_size=8), st.lists(moments, max_size=12))
def test_the_rows_that_last_at_moments_are_those_of_a_join_with_a_filter(
    rows: list[Row], asked: list[Row]
) -> None:
    for row in rows:
        row["valid_to"] = None if row["valid_to"] == NOW else row["valid_to"]
    times = {"valid_from": TIME, "valid_to": TIME}
    table = pl.DataFrame(rows, schema={"sku": pl.String, **times}).with_row_index("row")
    at = pl.DataFrame(asked, schema={"sku": pl.String, AT: TIME})
    is_over = (pl.col("valid_to") <= pl.col(AT)).fill_null(value=False)
    wanted = table.join(at.unique(), on="sku").filter(pl.col("valid_from") <= pl.col(AT), ~is_over)
    assert_frame_equal(lasting_at(table, at, ["sku"]), wanted, check_row_order=False)
