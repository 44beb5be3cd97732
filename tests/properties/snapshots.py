"""Snapshots of a few products at random, and a model of their history that keeps each of them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timedelta, timezone
from typing import Any, NamedTuple

import polars as pl
from hypothesis import strategies as st

from octogen_dagster.frames.columns import PRODUCT_SCHEMA
from octogen_dagster.frames.stored import TRACKED
from octogen_dagster.history.observed import Contents, Observation, observation_of
from octogen_dagster.history.table import HISTORY_SCHEMA, put_in

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
            {"catalog_key": key, "uuid": uuid, "brand": {"name": f"Brand {uuid}"}, **of}
            for (key, uuid), of in self.products.items()
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


CATALOGS = [None, "acme", "Zen"]
VALUES = st.fixed_dictionaries(
    {
        "title": st.sampled_from([None, "A", "B"]),
        "current_price": st.sampled_from([None, 0.0, 0.5, 1.0, 2.0]),
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
