"""Alerts of own prices against a model that works out the price position at each moment again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from octogen_dagster.alerts import BelowFloor, PriceListRule, Undercut
from octogen_dagster.alerts.events import ALERTS_SCHEMA
from octogen_dagster.alerts.update import PriceListAlertsUpdate
from octogen_dagster.history.tracking import PRODUCTS, Tracking
from octogen_dagster.position.table import price_position
from tests.prices_model import own_events
from tests.properties.snapshots import FIRST, Snapshot, Target, put_into

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
RULES: list[PriceListRule] = [
    Undercut(),
    Undercut(name="each", percent=10, by="any"),
    BelowFloor(),
    Undercut(name="once", again_after=timedelta(days=2)),
    BelowFloor(name="floor_once", again_after=timedelta(days=2)),
]
OWN = Tracking.of_table(
    ("sku", "product_url"),
    {name: (name,) for name in ("price", "currency", "map_price")},
)
PAGES = {
    "u0": "https://acme.example/p?id=1",
    "u1": "http://www.acme.example/p/?id=1",
    "u2": "https://acme.example/q",
    "u3": "https://zen.example/r",
}
CURRENCIES = st.sampled_from(["EUR", "EUR", "eur", "JPY", None])
products = st.fixed_dictionaries(
    {
        "current_price": st.sampled_from([80.0, 80.0, 90.0, 99.0, 110.0, None, float("nan")]),
        "currency": CURRENCIES,
        "in_stock": st.sampled_from([True, True, False, None]),
        "product_url": st.sampled_from([None, None, *PAGES.values()]),
    }
)
own_rows = st.fixed_dictionaries(
    {
        "price": st.sampled_from([85.0, 100.0, 100.0, 0.0, None, float("nan")]),
        "currency": CURRENCIES,
        "map_price": st.sampled_from([95.0, 85.0, None]),
    }
)
OWN_PAGES = [
    PAGES["u0"],
    PAGES["u0"],
    "https://ACME.example/q#x",
    PAGES["u3"],
    "https://zen.example/none",
    "no",
]
own_keys = st.tuples(st.sampled_from(["a", "b"]), st.sampled_from(OWN_PAGES))


def shop(found: Mapping[str, dict[str, Any]]) -> Snapshot:
    nothing = dict.fromkeys(("title", "original_price", "is_active"))
    rows = {
        ("acme", uuid): {**nothing, **of, "product_url": of["product_url"] or PAGES[uuid]}
        for uuid, of in found.items()
    }
    return Snapshot(rows)


def price_list(found: Mapping[Any, dict[str, Any]]) -> Snapshot:
    return Snapshot(dict(found), None, OWN)


def events_in(target: Target) -> set[tuple[Any, ...]]:
    assert target.table is not None
    assert target.table.schema == ALERTS_SCHEMA
    assert target.table["alert_id"].is_unique().all()
    columns = ("rule", "sku", "at", "uuid", "after", "price", "rank_before", "rank")
    return set(target.table.select(columns).iter_rows())


@pytest.mark.long
@pytest.mark.parametrize("size", [1_000, 1], ids=["one range", "many ranges"])
@settings(max_examples=15)
@given(data=st.data())
def test_alerts_of_own_prices_are_those_of_a_model_whichever_side_came_late_or_was_missed(
    data: st.DataObject, size: int
) -> None:
    days = data.draw(st.integers(3, 6))
    shops, prices = dict[datetime, Snapshot](), dict[datetime, Snapshot]()
    keys = data.draw(st.lists(own_keys, min_size=1, max_size=4, unique=True))

    def most(keys: Sequence[Any], values: st.SearchStrategy[Any]) -> dict[Any, Any]:
        """Values of most of the keys, since what lasts for days is what rules are about."""
        return {
            key: data.draw(values)
            for key in keys
            if data.draw(st.sampled_from([True, True, True, True, False]))
        }

    for number in range(days):
        at = FIRST + timedelta(days=number)
        shops[at] = shop(most([*PAGES], products) or {"u3": data.draw(products)})
        later = at + timedelta(hours=data.draw(st.sampled_from([0, 1])))
        prices[later] = price_list(most(keys, own_rows) or {keys[0]: data.draw(own_rows)})
    history, own, alerts = Target(), Target(), Target()
    arriving = data.draw(
        st.permutations(
            [
                *((history, PRODUCTS, each) for each in shops.items()),
                *((own, OWN, each) for each in prices.items()),
            ]
        )
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("octogen_dagster.alerts.price_list.ROWS_AT_ONCE", size)
        for number, (target, tracking, (at, snapshot)) in enumerate(arriving, 1):
            put_into(target, {at: snapshot}, tracking)
            is_cut = number == len(arriving) or data.draw(st.booleans())
            if not is_cut or history.table is None or own.table is None:
                continue
            for again in (False, True):
                said = {"history": history.metadata, "own": own.metadata}
                update = PriceListAlertsUpdate(RULES, history.table.lazy(), own.table.lazy(), said)
                figures = alerts.store(update).metrics()
                assert not again or not {"events_appeared", "events_vanished"} & figures.keys()
            own_now = own.table.filter(pl.col("valid_to").is_null())
            priced = own_now.select("sku", "product_url", "price", "currency")
            statuses = price_position(history.table.lazy(), priced)["status"].to_list()
            for name in ("unpriced", "no_price", "no_currency", "other_currency"):
                assert figures[name] == statuses.count(name)
            of_products, of_own = history.table.to_dicts(), own.table.to_dicts()
            assert events_in(alerts) == own_events(of_products, of_own, RULES)
