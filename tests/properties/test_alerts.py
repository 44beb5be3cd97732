"""Alerts against a model that looks through all snapshots again after each of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from octogen_dagster.alerts import (
    AlertRule,
    Appeared,
    BackInStock,
    Disappeared,
    OutOfStock,
    PriceBelow,
    PriceDropped,
    PriceRose,
)
from octogen_dagster.alerts import update as alerts_update
from octogen_dagster.alerts.events import ALERTS_SCHEMA
from octogen_dagster.alerts.update import AlertsUpdate
from octogen_dagster.history.observed import Contents
from tests.prices_model import changes_of_currency, moments, remembered, unrepeated
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
    PriceDropped(name="dropped_once", again_after=timedelta(days=2)),
    PriceRose(name="rose_once", again_after=timedelta(days=2), where=pl.col("title") == "A"),
    PriceBelow(price=1.0),
    PriceBelow(name="below_in_eur", price=0.5, currency="EUR"),
    BackInStock(),
    BackInStock(name="back_once", again_after=timedelta(days=3), days=1),
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
        rows = remembered(sorted(of_product, key=lambda row: row["valid_from"]))
        first = min(at for at in snapshots if snapshots[at].covers(catalog))
        ends = {row["valid_to"]: row for row in rows}
        begins = {row["valid_from"]: row for row in rows}
        for rule, since in rules.items():
            of_time = ends if isinstance(rule, Disappeared) else begins
            found = [
                (at, of_time[at]["unit"], values[-1], values)
                for at, *values in moments(rows, rule, first)
                if is_meant(rule, of_time[at])
            ]
            for at, _, _, values in unrepeated(found, rule):
                if at >= since:
                    events.add((rule.name, catalog, uuid, at, *values))
        of_prices = {rule: since for rule, since in rules.items() if rule.of_prices}
        for at, *values in changes_of_currency(rows):
            is_wanted = any(is_meant(rule, begins[at]) for rule in of_prices)
            if is_wanted and at >= min(of_prices.values()):
                events.add(("currency_changed", catalog, uuid, at, *values))
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
        last = Counter(event[0] for event in events_in(target) if event[3] == max(there))
        assert {rule.name: metrics.get(rule.name, 0) for rule in RULES} == {
            rule.name: last[rule.name] for rule in RULES
        }
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
    target, rule = Target(), data.draw(st.sampled_from(RULES[:-1]))
    begins = {each: max(made) - timedelta(days=each.days) for each in (RULES[-1], rule)}
    for rules in (RULES[-1:], [RULES[-1], rule], RULES[-1:]):
        updated(target, made, rules)
        assert events_in(target) == expected(made, {each: begins[each] for each in rules})
