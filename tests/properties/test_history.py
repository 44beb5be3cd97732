"""The history of products against a model that keeps every snapshot as it was."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timedelta, timezone
from typing import Any, NamedTuple

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from octogen_dagster.frames import history as module
from octogen_dagster.frames.columns import PRODUCT_SCHEMA
from octogen_dagster.frames.history import HISTORY_SCHEMA, put_in, take_out, valid_at
from octogen_dagster.frames.observed import (
    TRACKED,
    Contents,
    Observation,
    observation_of,
)

Product = tuple[str | None, str]
Observed = Mapping[datetime, Observation]
FIRST = datetime(2026, 11, 1, 6, tzinfo=timezone.utc)
MAY_BE_UNSENT = ("currency", "in_stock", "is_active")
KINDS = {"title": TRACKED[:1], "price": TRACKED[1:4], "availability": TRACKED[4:]}


class Snapshot(NamedTuple):
    """A snapshot of one or two catalogs; with filters also of catalogs in which nothing matched."""

    products: dict[Product, dict[str, Any]]
    read: frozenset[str] | None

    @property
    def frame(self) -> pl.LazyFrame:
        rows = [
            {"catalog_key": key, "uuid": uuid, **of} for (key, uuid), of in self.products.items()
        ]
        return pl.DataFrame(rows, schema=PRODUCT_SCHEMA).lazy()

    @property
    def file_metadata(self) -> dict[str, str]:
        if self.read is None:
            return {"octogen.search": "{}"}
        return {"octogen.search": '{"q": "boots"}', "octogen.catalogs": json.dumps([*self.read])}

    def covers(self, catalog: str | None) -> bool:
        present = {key for key, _ in self.products}
        return catalog in present or (
            self.read is not None and (catalog or "").lower() in {*self.read, ""}
        )


Snapshots = dict[datetime, Snapshot]


def with_snapshot(
    history: pl.DataFrame, observed: Observed, at: datetime, snapshot: Snapshot
) -> tuple[pl.DataFrame, Observed]:
    observed = {**observed, at: observation_of(snapshot.frame, snapshot.file_metadata)}
    observed = Contents.read(Contents({**observed}, {}, [], {}).metadata()).observed
    rows = put_in(history.lazy(), snapshot.frame, at, observed)
    return pl.concat([history.clear(), *rows]), observed


def made_of(snapshots: Iterable[tuple[datetime, Snapshot]]) -> tuple[pl.DataFrame, Observed]:
    history = pl.DataFrame(schema=HISTORY_SCHEMA)
    observed: Observed = {}
    for at, snapshot in snapshots:
        history, observed = with_snapshot(history, observed, at, snapshot)
    return history, observed


def as_it_was(snapshots: Snapshots, moment: datetime) -> dict[Product, dict[str, Any]]:
    """The tracked columns at a moment: of each catalog those of its last snapshot until then."""
    found: dict[Product, dict[str, Any]] = {}
    for at in sorted(snapshots):
        if at <= moment:
            found = {key: of for key, of in found.items() if not snapshots[at].covers(key[0])}
            found |= snapshots[at].products
    return {key: {name: of[name] for name in TRACKED} for key, of in found.items()}


def rows_of(snapshots: Snapshots) -> Iterator[dict[str, Any]]:
    """The rows of the history, product by product."""
    for key in {key for each in snapshots.values() for key in each.products}:
        times = [at for at in sorted(snapshots) if snapshots[at].covers(key[0])]
        last = [at for at in times if key in snapshots[at].products][-1]
        url = snapshots[last].products[key]["product_url"]
        identity = {"catalog_key": key[0], "uuid": key[1], "product_url": url}
        row: dict[str, Any] = {}
        values, change = None, "appeared"
        for at in times:
            product = snapshots[at].products.get(key)
            now = product and {name: product[name] for name in TRACKED}
            if now == values:
                continue
            if values:
                yield {**row, "valid_to": at, "is_current": False}
            row = {**identity, "valid_from": at, "change": change, "changed": None, **(now or {})}
            if now and values:
                changed = {name for name in TRACKED if now[name] != values[name]}
                row["change"] = "changed"
                row["changed"] = [kind for kind, names in KINDS.items() if changed & {*names}]
            values, change = now, "reappeared"
        if values:
            yield {**row, "valid_to": None, "is_current": True}


def in_order(history: pl.DataFrame) -> pl.DataFrame:
    return history.sort("uuid", "catalog_key", "valid_from")


pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
CATALOGS = [None, "acme", "Zen"]
VALUES = st.fixed_dictionaries(
    {
        "title": st.sampled_from([None, "A", "B"]),
        "current_price": st.sampled_from([None, 1.0, 2.0]),
        "original_price": st.sampled_from([None, 3.0]),
        "currency": st.sampled_from([None, "eur", "usd"]),
        "in_stock": st.sampled_from([None, True, False]),
        "is_active": st.sampled_from([None, True, False]),
        "product_url": st.sampled_from(["https://shop/a", "https://shop/b"]),
    }
)


@st.composite
def snapshots(draw: st.DrawFn) -> Snapshot:
    products = draw(
        st.dictionaries(
            st.tuples(st.sampled_from(CATALOGS), st.sampled_from(["1", "2", "3"])),
            VALUES,
            max_size=7,
        )
    )
    for name in draw(st.sets(st.sampled_from(MAY_BE_UNSENT))):
        for product in products.values():
            product[name] = None
    read = draw(st.none() | st.frozensets(st.sampled_from(["acme", "zen"])))
    return Snapshot(products, read)


def histories(min_size: int) -> st.SearchStrategy[Snapshots]:
    return st.lists(snapshots(), min_size=min_size, max_size=7).map(
        lambda made: {FIRST + timedelta(days=number): each for number, each in enumerate(made)}
    )


@pytest.fixture(autouse=True, params=[1_000, 1], ids=["one range", "many ranges"])
def _ranges(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_ROWS_AT_ONCE", "_SAMPLED"):
        monkeypatch.setattr(module, name, request.param)


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


@given(made=histories(2), data=st.data())
def test_a_forgotten_snapshot_might_never_have_been(made: Snapshots, data: st.DataObject) -> None:
    history, observed = made_of(made.items())
    at = data.draw(st.sampled_from([*made]))
    without = pl.concat([history.clear(), *take_out(history.lazy(), at, observed)])
    expected, _ = made_of((time, each) for time, each in made.items() if time != at)
    url = "product_url"  # as it was last seen, also by the snapshot that is forgotten
    assert_frame_equal(in_order(without.drop(url)), in_order(expected.drop(url)))
