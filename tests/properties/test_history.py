"""The history of products against a model that keeps every snapshot as it was."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from octogen_dagster.frames.stored import TRACKED
from octogen_dagster.history import table as module
from octogen_dagster.history.table import HISTORY_SCHEMA, take_out, valid_at
from tests.properties.snapshots import Product, Snapshots, histories, made_of, rows_of

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def as_it_was(snapshots: Snapshots, moment: datetime) -> dict[Product, dict[str, Any]]:
    """The tracked columns at a moment: of each catalog those of its last snapshot until then."""
    found: dict[Product, dict[str, Any]] = {}
    for at in sorted(snapshots):
        if at <= moment:
            found = {key: of for key, of in found.items() if not snapshots[at].covers(key[0])}
            found |= snapshots[at].products
    return {key: {name: of[name] for name in TRACKED} for key, of in found.items()}


def in_order(history: pl.DataFrame) -> pl.DataFrame:
    return history.sort("uuid", "catalog_key", "valid_from")


@pytest.fixture(autouse=True, params=[1_000, 1], ids=["one range", "many ranges"])
def _ranges(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ROWS_AT_ONCE", "_SAMPLED"):
        monkeypatch.setattr(module, name, request.param)


@pytest.mark.long
@settings(max_examples=100)  # 500 advances or more
@given(made=histories(5), data=st.data())
def test_a_history_in_any_order_of_arrival_is_that_of_a_model_which_keeps_all_snapshots(
    made: Snapshots, data: st.DataObject
) -> None:
    history, _ = made_of(data.draw(st.permutations([*made.items()])))
    expected = pl.DataFrame([*rows_of(made)], schema=HISTORY_SCHEMA)
    assert_frame_equal(in_order(history), in_order(expected))
    assert history["uuid"].is_sorted()
    for at in made:
        for moment in (at, at + timedelta(hours=1), at - timedelta(hours=1)):
            rows = history.filter(valid_at(moment))
            found = {
                (row["catalog_key"], row["uuid"]): {name: row[name] for name in TRACKED}
                for row in rows.iter_rows(named=True)
            }
            assert found == as_it_was(made, moment)


@pytest.mark.long
@given(made=histories(2), data=st.data())
def test_a_forgotten_snapshot_might_never_have_been(made: Snapshots, data: st.DataObject) -> None:
    history, observed = made_of(made.items())
    at = data.draw(st.sampled_from([*made]))
    without = pl.concat([history.clear(), *take_out(history.lazy(), at, observed)])
    expected, _ = made_of((time, each) for time, each in made.items() if time != at)
    url = "product_url"  # as it was last seen, also by the snapshot that is forgotten
    assert_frame_equal(in_order(without.drop(url)), in_order(expected.drop(url)))
