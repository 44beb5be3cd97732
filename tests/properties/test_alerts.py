"""Alerts against a model that looks through all snapshots again after each of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from octogen_dagster.alerts import update as alerts_update
from octogen_dagster.alerts.events import ALERTS_SCHEMA
from octogen_dagster.alerts.rules import (
    AlertRule,
    Appeared,
    BackInStock,
    Disappeared,
    OutOfStock,
    PriceDropped,
    PriceRose,
)
from octogen_dagster.alerts.update import AlertsUpdate
from octogen_dagster.history.observed import Contents
from tests.properties.snapshots import Snapshots, Target, histories, made_of, rows_of

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
Row = dict[str, Any]
Event = tuple[Any, ...]
DAYS = 3
BRAND = pl.Struct({"name": pl.String})
RULES: list[AlertRule] = [
    PriceDropped(percent=10),
    PriceDropped(name="half", percent=50, amount=1.0),
    PriceDropped(name="below_lowest", against="lowest", days=DAYS),
    PriceDropped(name="below_median", percent=30, against="median", days=DAYS),
    PriceRose(amount=1.5, where=pl.col("title") == "A"),
    PriceRose(name="of_a_brand", where=pl.col("brand").struct.field("name") == "Acme"),
    BackInStock(),
    OutOfStock(where=pl.col("catalog_key").is_not_null()),
    Appeared(),
    Disappeared(),
]


def branded(min_size: int) -> st.SearchStrategy[Snapshots]:
    """Histories of products that keep their brands, since events that were found stay."""

    def with_brands(made: Snapshots) -> Snapshots:
        for snapshot in made.values():
            for (_, uuid), product in snapshot.products.items():
                product["brand"] = {"name": "Acme" if uuid == "1" else "Zen"}
        return made

    return histories(min_size).map(with_brands)


def updated(target: Target, snapshots: Snapshots, rules: Sequence[AlertRule]) -> dict[str, Any]:
    """Bring the alerts up to date with the history of snapshots, and return the metrics."""
    history, observed = made_of(snapshots.items())
    metadata = Contents({**observed}, {}, [], {}).metadata()
    last = snapshots[max(snapshots)].frame if snapshots else history.lazy()
    outcome = target.store(AlertsUpdate(rules, history.lazy(), metadata, last))
    metrics: dict[str, Any] = outcome.metrics()
    return metrics


def known(rows: list[Row]) -> list[Row]:
    """The rows, with what was last known of the product at the time of each."""
    state: Row = dict.fromkeys(("unit", "price", "price_unit", "stock"))
    states = []
    for row in rows:
        state = {**state, "unit": row["currency"] or state["unit"]}
        if row["current_price"]:
            state |= {"price": row["current_price"], "price_unit": state["unit"]}
        if row["is_active"] is False or row["in_stock"] is not None:
            state["stock"] = row["in_stock"] is True and row["is_active"] is not False
        states.append({**row, **state})
    return states


def begun(rows: list[Row], index: int, *names: str) -> datetime:
    """Since when a product had the values that it has in a row."""
    while index and all(rows[index - 1][name] == rows[index][name] for name in names):
        index -= 1
    since: datetime = rows[index]["valid_from"]
    return since


def reference(
    rule: Any, rows: list[Row], index: int, at: datetime
) -> tuple[float, datetime] | None:
    """The price that a rule compares with, and since when it was the price."""
    unit = rows[index]["unit"]
    if rule.against == "before":
        since = begun(rows, index - 1, "price", "price_unit")
        return rows[index - 1]["price"], since
    begin = at - timedelta(days=rule.days)
    priced = [
        (
            row["price"],
            begun(rows, number, "price", "price_unit"),
            max(row["valid_from"], begin),
            min(row["valid_to"], at),
        )
        for number, row in enumerate(rows[:index])
        if row["valid_to"] > begin and row["price_unit"] == unit and row["price"] is not None
    ]
    if not priced:
        return None
    if rule.against == "lowest":
        price, since, *_ = min(priced, key=lambda each: (each[0], -each[1].timestamp()))
        return price, since
    hours = sorted(
        price
        for price, _, start, end in priced
        for _ in range(int((end - start) / timedelta(hours=1)))
    )
    return hours[(len(hours) - 1) // 2], begin


def is_beyond(rule: Any, price: float, than: float) -> bool:
    by = than - price if isinstance(rule, PriceDropped) else price - than
    percent = rule.percent is None or by >= than * rule.percent / 100 - 1e-9
    return by > 0 and percent and (rule.amount is None or by >= rule.amount)


def moments(rows: list[Row], rule: AlertRule, first: datetime) -> Iterator[Event]:
    """When a rule became true of a product: time, since, before and after."""
    for index, row in enumerate(rows):
        at, price = row["valid_from"], row["current_price"] or None
        before = rows[index - 1] if index else None
        goes_on = before is not None and before["valid_to"] == at
        old = before["price"] if before and before["price_unit"] == row["unit"] else None
        match rule:
            case PriceDropped() | PriceRose() if old is not None and price is not None:
                found = reference(rule, rows, index, at)
                if (
                    found
                    and is_beyond(rule, price, found[0])
                    and not is_beyond(rule, old, found[0])
                ):
                    yield at, found[1], found[0], price
            case BackInStock() | OutOfStock() if before:
                stocks = (before["stock"], row["stock"])
                if stocks == ((False, True) if isinstance(rule, BackInStock) else (True, False)):
                    yield at, begun(rows, index - 1, "stock"), old, price
            case Appeared() if not goes_on and at > first:
                yield at, before and before["valid_to"], old, price
        following = rows[index + 1] if index + 1 < len(rows) else None
        is_gone = row["valid_to"] and (not following or following["valid_from"] != row["valid_to"])
        if isinstance(rule, Disappeared) and is_gone:
            start = index
            while start and rows[start - 1]["valid_to"] == rows[start]["valid_from"]:
                start -= 1
            last = row["price"] if row["price_unit"] == row["unit"] else None
            yield row["valid_to"], rows[start]["valid_from"], last, None


def is_meant(rule: AlertRule, row: Row) -> bool:
    """True if a rule is about a product, whose brand stays known when it is gone."""
    row = {**row, "brand": {"name": row["brand_name"]}}
    return rule.where is None or bool(
        pl.DataFrame(
            [row], schema_overrides={"title": pl.String, "brand": BRAND}, infer_schema_length=1
        )
        .select(rule.where)
        .item()
    )


def expected(snapshots: Snapshots, rules: Mapping[AlertRule, datetime]) -> set[Event]:
    """All events of rules from a time on, of the snapshots as they are."""
    by_product: dict[tuple[str | None, str], list[Row]] = {}
    for row in rows_of(snapshots):
        by_product.setdefault((row["catalog_key"], row["uuid"]), []).append(row)
    events = set()
    for (catalog, uuid), of_product in by_product.items():
        rows = known(sorted(of_product, key=lambda row: row["valid_from"]))
        first = min(at for at in snapshots if snapshots[at].covers(catalog))
        ends = {row["valid_to"]: row for row in rows}
        begins = {row["valid_from"]: row for row in rows}
        for rule, since in rules.items():
            for at, *values in moments(rows, rule, first):
                row = ends[at] if isinstance(rule, Disappeared) else begins[at]
                if at >= since and is_meant(rule, row):
                    events.add((rule.name, catalog, uuid, at, *values))
        of_prices = {rule: since for rule, since in rules.items() if rule.of_prices}
        for before, row in pairwise(rows):
            at, units = row["valid_from"], (before["unit"], row["unit"])
            is_wanted = any(is_meant(rule, row) for rule in of_prices) and (
                at >= min(of_prices.values())
            )
            if is_wanted and None not in units and units[0] != units[1]:
                since, price = begun(rows, rows.index(before), "unit"), row["current_price"] or None
                events.add(("currency_changed", catalog, uuid, at, since, None, price))
    return events


def events_in(target: Target) -> set[Event]:
    assert target.table is not None
    assert target.table.schema == ALERTS_SCHEMA
    assert target.table["alert_id"].is_unique().all()
    columns = ("rule", "catalog_key", "uuid", "at", "since", "before", "after")
    return set(target.table.select(columns).iter_rows())


@pytest.fixture(autouse=True, params=[1_000, 1], ids=["one range", "many ranges"])
def _ranges(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alerts_update, "ROWS_AT_ONCE", request.param)
    for name in ("ROWS_AT_ONCE", "_SAMPLED"):
        monkeypatch.setattr(f"octogen_dagster.history.table.{name}", request.param)


@pytest.mark.long
@settings(max_examples=30)
@given(made=branded(5), data=st.data())
def test_alerts_are_those_of_a_model_whatever_came_late_was_missed_or_forgotten(
    made: Snapshots, data: st.DataObject
) -> None:
    target, there = Target(), dict[datetime, Any]()
    draw: Any = data.draw
    order = [*draw(st.permutations([*made]))]
    begins = None
    while order or draw(st.integers(0, 1)):
        for _ in range(draw(st.integers(1, 3))):  # runs of the alerts that were missed
            if order:
                at = order.pop()
                there[at] = made[at]
        if there and draw(st.integers(0, 3)) == 0:
            del there[draw(st.sampled_from([*there]))]
        before = events_in(target) if target.table is not None else set()
        metrics = updated(target, there, RULES)
        if not there:
            assert events_in(target) == set()
            begins = None
            continue
        earliest = {rule: max(there) - timedelta(days=rule.days) for rule in RULES}
        begins = begins or earliest
        begins = {rule: min(begins[rule], earliest[rule]) for rule in RULES}
        assert events_in(target) == expected(there, begins)
        ids = [{event[:4] for event in events} for events in (before, events_in(target))]
        assert metrics.get("events_appeared", 0) == len(ids[1] - ids[0])
        assert metrics.get("events_vanished", 0) == len(ids[0] - ids[1])
        table = target.table
        assert "events_appeared" not in updated(target, there, RULES)
        assert table is not None
        assert target.table is not None
        assert table.equals(target.table)


@pytest.mark.long
@given(made=branded(3), data=st.data())
def test_a_rule_that_is_added_looks_back_over_its_days(
    made: Snapshots, data: st.DataObject
) -> None:
    target, last = Target(), max(made)
    updated(target, made, [])
    rule = data.draw(st.sampled_from(RULES))
    updated(target, made, [rule])
    assert events_in(target) == expected(made, {rule: last - timedelta(days=rule.days)})
    updated(target, made, [])
    assert events_in(target) == set()
