"""The histories of all tables against a model that keeps every snapshot as it was."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from octogen_dagster.history import table as module
from octogen_dagster.history.observed import Contents
from octogen_dagster.history.table import take_out, valid_at
from octogen_dagster.history.tracking import PRODUCTS, Tracking
from tests.prices_model import page
from tests.properties.snapshots import (
    OWN,
    TABLES,
    Key,
    Snapshots,
    Target,
    histories,
    put_into,
    rows_of,
    values_of,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def as_it_was(snapshots: Snapshots, moment: datetime) -> dict[Key, dict[str, Any]]:
    """The rows at a moment: of each catalog those of its last snapshot until then."""
    found: dict[Key, dict[str, Any]] = {}
    for at in sorted(snapshots):
        if at <= moment:
            found = {key: of for key, of in found.items() if not snapshots[at].covers(key)}
            found |= snapshots[at].products
    return found


def in_order(history: pl.DataFrame, tracking: Tracking) -> pl.DataFrame:
    return history.sort(*tracking.order, "valid_from")


@pytest.fixture(autouse=True, params=[1_000, 1], ids=["one range", "many ranges"])
def _ranges(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ROWS_AT_ONCE", "_SAMPLED"):
        monkeypatch.setattr(module, name, request.param)


@pytest.mark.long
@pytest.mark.parametrize("table", TABLES)
@settings(max_examples=25)
@given(data=st.data())
def test_a_history_in_any_order_of_arrival_is_that_of_a_model_which_keeps_all_snapshots(
    data: st.DataObject, table: str
) -> None:
    made: Snapshots = data.draw(histories(5, table))
    tracking, target, runs = OWN.get(table, PRODUCTS), Target(), data.draw(st.integers(1, 7))
    days = data.draw(st.permutations([*made.items()]))
    for begin in range(0, len(days), runs):
        put_into(target, dict(days[begin : begin + runs]), tracking)
        again = target.table
        put_into(target, dict(days[:begin]), tracking)
        assert again is not None
        assert target.table is not None
        assert_frame_equal(target.table, again)
    history = target.table
    assert history is not None
    expected = pl.DataFrame([*rows_of(made, tracking)], schema=history.schema, strict=False)
    assert_frame_equal(in_order(history, tracking), in_order(expected, tracking))
    assert history[tracking.order[0]].is_sorted()
    for at in made:
        for moment in (at, at + timedelta(hours=1), at - timedelta(hours=1)):
            rows = history.filter(valid_at(moment))
            found = {
                tuple(row[name] for name in tracking.key): values_of(row, tracking)
                for row in rows.iter_rows(named=True)
            }
            then = as_it_was(made, moment)
            assert found == {key: values_of(of, tracking) for key, of in then.items()}


@pytest.mark.long
@pytest.mark.parametrize("table", TABLES)
@settings(max_examples=20)
@given(data=st.data())
def test_a_forgotten_snapshot_might_never_have_been(data: st.DataObject, table: str) -> None:
    made: Snapshots = data.draw(histories(2, table))
    tracking, target, other = OWN.get(table, PRODUCTS), Target(), Target()
    put_into(target, made, tracking)
    at = data.draw(st.sampled_from([*made]))
    put_into(other, {time: each for time, each in made.items() if time != at}, tracking)
    assert target.table is not None
    assert other.table is not None
    kept = Tracking.read(target.metadata, target.table.lazy())
    observed = Contents.read(target.metadata).observed
    rows = take_out(target.table.lazy(), at, observed, kept)
    without = pl.concat([target.table.clear(), *rows])
    # What was seen last stays, also if it was in the forgotten snapshot, and so do types.
    without, expected = (
        each.select(other.table.columns)
        .drop("brand_name", "category", strict=False)
        .with_columns(pl.col("^product_url$").map_elements(page, pl.String))
        for each in (without, other.table)
    )
    expected = expected.cast(without.schema)
    assert_frame_equal(in_order(without, tracking), in_order(expected, tracking))


@pytest.mark.long
@pytest.mark.parametrize("table", ["products", "linked", "sku"])
@settings(max_examples=20)
@given(data=st.data())
def test_a_page_that_is_missing_is_the_last_known_one(data: st.DataObject, table: str) -> None:
    made: Snapshots = data.draw(histories(2, table))
    tracking, target, other = OWN.get(table, PRODUCTS), Target(), Target()
    last: dict[Key, str] = {}
    for at, snapshot in made.items():
        sent: dict[Key, dict[str, Any]] = {}
        for key, of in snapshot.products.items():
            url = data.draw(st.sampled_from([of["product_url"], None, "", "none"]))
            sent[key] = {**of, "product_url": url}
            if page(url):
                last[key] = url
        known = {
            key: {**of, "product_url": last.get(key, of["product_url"])} for key, of in sent.items()
        }
        put_into(target, {at: snapshot._replace(products=sent)}, tracking)
        put_into(other, {at: snapshot._replace(products=known)}, tracking)
    assert target.table is not None
    assert other.table is not None
    assert_frame_equal(in_order(target.table, tracking), in_order(other.table, tracking))
