"""Snapshots of a few rows at random, and a model of their history that keeps each of them."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import polars as pl
from hypothesis import strategies as st

from octogen_dagster.changes.table import product_changes, vanished_catalogs
from octogen_dagster.frames.columns import PRODUCT_SCHEMA
from octogen_dagster.frames.stored import StoredSnapshot
from octogen_dagster.history.observed import Contents, Observation, observation_of
from octogen_dagster.history.table import put_in
from octogen_dagster.history.tracking import PRODUCTS, Tracking
from octogen_dagster.history.update import HistoryUpdate
from tests.prices_model import page

Key = tuple[Any, ...]
Observed = Mapping[datetime, Observation]
FIRST = datetime(2026, 11, 1, 6, tzinfo=UTC)
MAY_BE_UNSENT = ("currency", "in_stock", "is_active", "brand", "category_path")


class Snapshot(NamedTuple):
    """A snapshot of a table by its key.

    One of products is of one or two catalogs, with filters also of catalogs in which nothing
    matched. The view of a linked one lacks columns.
    """

    products: dict[Key, dict[str, Any]]
    read: frozenset[str] | None = None
    tracking: Tracking = PRODUCTS
    lacks: frozenset[str] | None = None

    @property
    def frame(self) -> pl.LazyFrame:
        rows = [
            {**dict(zip(self.tracking.key, key, strict=True)), **of}
            for key, of in self.products.items()
        ]
        if not self.tracking.of_products:
            return pl.DataFrame(rows, schema=None if rows else [*self.tracking.types]).lazy()
        return pl.DataFrame(rows, schema=PRODUCT_SCHEMA).drop(self.lacks or ()).lazy()

    @property
    def file_metadata(self) -> dict[str, str]:
        if self.lacks is not None:
            return {"octogen.source_table": "p.d.t"}
        if self.read is None:
            return {"octogen.search": "{}"}
        return {"octogen.search": '{"q": "boots"}', "octogen.catalogs": json.dumps([*self.read])}

    def covers(self, key: Any) -> bool:
        """True if it says what there is of a key, or of a catalog."""
        if not self.tracking.of_products:
            return True
        catalog = key[0] if isinstance(key, tuple) else key
        present = {each for each, _ in self.products}
        return catalog in present or (
            self.read is not None and (catalog or "").lower() in {*self.read, ""}
        )


Snapshots = dict[datetime, Snapshot]


def with_snapshot(
    history: pl.DataFrame, observed: Observed, at: datetime, snapshot: Snapshot
) -> tuple[pl.DataFrame, Observed]:
    observed = {**observed, at: observation_of(snapshot.frame, snapshot.file_metadata)}
    observed = Contents.read(Contents({**observed}, {}, [], {}).metadata()).observed
    rows = put_in(history.lazy(), PRODUCTS.rows(snapshot.frame), at, observed)
    return pl.concat([history.clear(), *rows]), observed


def made_of(snapshots: Iterable[tuple[datetime, Snapshot]]) -> tuple[pl.DataFrame, Observed]:
    history = pl.DataFrame(schema=PRODUCTS.schema)
    observed: Observed = {}
    for at, snapshot in snapshots:
        history, observed = with_snapshot(history, observed, at, snapshot)
    return history, observed


def changes_of(
    before: pl.LazyFrame, now: pl.LazyFrame, file_metadata: dict[str, str]
) -> tuple[pl.DataFrame, list[str]]:
    """The changes in a history of two snapshots, and the catalogs that vanished."""
    history, observed = pl.DataFrame(schema=PRODUCTS.schema), dict[datetime, Observation]()
    then = FIRST + timedelta(days=1)
    for at, each in ((FIRST, before), (then, now)):
        observed[at] = observation_of(each, file_metadata)
        rows = put_in(history.lazy(), PRODUCTS.rows(each), at, observed)
        history = pl.concat([history.clear(), *rows])
    changes = product_changes(history.lazy(), then, observed)
    return changes, vanished_catalogs(observed, then, FIRST)


class Target:
    """A place in memory, which stands for that of a file."""

    def __init__(self) -> None:
        self.table: pl.DataFrame | None = None
        self.metadata: Mapping[str, str] = {}

    def latest(self) -> pl.LazyFrame | None:
        return None if self.table is None else self.table.lazy()

    def latest_metadata(self) -> Mapping[str, str]:
        return self.metadata

    def version(self) -> object:
        return None

    def log(self, _line: str) -> None: ...

    def store(self, source: Any) -> Any:
        """Store what a source reads, and return its outcome."""
        place: Any = self
        with source.reading(place, threading.Event()) as reading:
            self.table = reading.frame.collect()
            outcome = reading.outcome()
        self.metadata = outcome.file_metadata
        return outcome


def put_into(target: Target, snapshots: Mapping[datetime, Snapshot], tracking: Tracking) -> None:
    """Put snapshots into the history in a target, as one run does."""

    def stored(at: datetime, each: Snapshot) -> StoredSnapshot:
        metadata = {**each.file_metadata, "octogen.fetched_at": at.isoformat()}
        return StoredSnapshot(lambda: (each.frame, {**metadata, "octogen.run_id": f"{at}"}))

    target.store(HistoryUpdate([stored(*each) for each in snapshots.items()], tracking))


def values_of(row: Mapping[str, Any] | None, tracking: Tracking) -> dict[str, Any] | None:
    """What a history keeps of a row: its tracked values, and its page unless it is one of them."""
    if row is None:
        return None
    seen = {name: page(row[name]) for name in ("product_url",) if name in row}
    return {**seen, **{name: row[name] for name in tracking.tracked}}


def rows_of(snapshots: Snapshots, tracking: Tracking = PRODUCTS) -> Iterator[dict[str, Any]]:
    """The rows of the history, key by key."""
    kinds = {**tracking.watched, "product_url": ("product_url",)}
    for key in {key for each in snapshots.values() for key in each.products}:
        times = [at for at in sorted(snapshots) if snapshots[at].covers(key)]
        there = [snapshots[at].products.get(key) for at in times]
        # All rows on a page have the spelling of its address that was seen last.
        spelled = {
            page(of["product_url"]): of["product_url"] for of in there if of and "product_url" in of
        }
        newest = [of for of in there if of][-1]
        seen = dict(zip(tracking.key, key, strict=True))
        if tracking.of_products:
            levels = newest.get("category_path") or ()
            seen["brand_name"] = (newest.get("brand") or {}).get("name")
            seen["category"] = " \u203a ".join(levels) or None
        row: dict[str, Any] = {}
        values, change = None, "appeared"
        for at, of in zip(times, there, strict=True):
            if (now := values_of(of, tracking)) == values:
                continue
            if values:
                yield {**row, "valid_to": at, "is_current": False}
            if now:
                row = {**seen, **now, "valid_from": at}
                row |= {"change": change, "changed": None}
                if "product_url" in now:
                    row["product_url"] = spelled[now["product_url"]]
            if now and values:
                changed = {name for name in now if now[name] != values[name]}
                named = [kind for kind, names in kinds.items() if changed & {*names}]
                row |= {"change": "changed", "changed": named}
            values, change = now, "reappeared"
        if values:
            yield {**row, "valid_to": None, "is_current": True}


URLS = st.sampled_from(["https://shop/a", "https://shop/a", "http://www.shop/a/", "https://shop/b"])
CATALOGS = [None, "acme", "Zen"]
VALUES = st.fixed_dictionaries(
    {
        "title": st.sampled_from([None, "A", "B"]),
        "current_price": st.sampled_from([None, 0.0, 0.5, 1.0, 2.0]),
        "original_price": st.sampled_from([None, 3.0]),
        "currency": st.sampled_from([None, "eur", "usd"]),
        "in_stock": st.sampled_from([None, True, False]),
        "is_active": st.sampled_from([None, True, False]),
        "product_url": URLS,
        "brand": st.sampled_from([None, {"name": "Acme"}, {"name": "Zen"}]),
        "category_path": st.sampled_from([None, [], ["Hats"], ["Shoes", "Boots"]]),
    }
)


KEYS: dict[str, st.SearchStrategy[Key]] = {
    "sku": st.sampled_from(["a", "b", "c"]).map(lambda sku: (sku,)),
    "sku and page": st.tuples(st.sampled_from(["a", "b"]), st.sampled_from([1, 2])),
}
OWN = {
    "sku": Tracking.of_table(("sku",), {"price": ("price",), "floor": ("map_price",)}),
    "sku and page": Tracking.of_table(
        ("sku", "page"), {"price": ("price",), "map_price": ("map_price",)}
    ),
}
OWN_VALUES = {
    "price": st.sampled_from([None, 1, 2, 2.5]),
    "map_price": st.sampled_from([None, "low", "high"]),
}
TABLES = ["products", "linked", *OWN]
"""The tables that histories are of."""


@st.composite
def snapshots(draw: st.DrawFn, table: str = "products") -> Snapshot:
    if table in OWN:
        values = st.fixed_dictionaries(
            OWN_VALUES | ({"product_url": URLS} if table == "sku" else {})
        )
        rows = draw(st.dictionaries(KEYS[table], values, max_size=4))
        return Snapshot(rows, None, OWN[table])
    products = draw(
        st.dictionaries(
            st.tuples(st.sampled_from(CATALOGS), st.sampled_from(["1", "2", "3"])),
            VALUES,
            max_size=7,
        )
    )
    lacks = draw(st.sets(st.sampled_from(MAY_BE_UNSENT)))
    products = {key: {**of, **dict.fromkeys(lacks)} for key, of in products.items()}
    if table == "linked":
        return Snapshot(products, None, PRODUCTS, frozenset(lacks))
    return Snapshot(products, draw(st.none() | st.frozensets(st.sampled_from(["acme", "zen"]))))


def histories(min_size: int, table: str = "products") -> st.SearchStrategy[Snapshots]:
    return st.lists(snapshots(table), min_size=min_size, max_size=7).map(
        lambda made: {FIRST + timedelta(days=number): each for number, each in enumerate(made)}
    )
