"""The changes between two product snapshots, on frames."""

from __future__ import annotations

from typing import Any

import polars as pl
import pytest

from octogen_dagster.frames.changes import (
    CHANGES_DESCRIPTIONS,
    CHANGES_SCHEMA,
    SnapshotPair,
    product_changes,
    vanished_catalogs,
)
from octogen_dagster.frames.schema import PRODUCT_SCHEMA


def snapshot(*products: dict[str, Any]) -> pl.LazyFrame:
    """A snapshot of products, given by some of their columns."""
    filled = [{"product_url": f"https://shop/{row['uuid']}", **row} for row in products]
    return pl.DataFrame(filled, schema=PRODUCT_SCHEMA).lazy()


def test_changes_have_old_and_new_values() -> None:
    before = snapshot(
        {"uuid": "same", "title": "A", "current_price": 1.0, "in_stock": True},
        {"uuid": "price", "title": "A", "current_price": 1.0, "currency": "EUR"},
        {"uuid": "all", "title": "A", "current_price": 1.0, "in_stock": True},
        {"uuid": "gone", "title": "A", "current_price": 3.0},
        {"uuid": "all", "catalog_key": "other", "title": "of another catalog"},
    )
    now = snapshot(
        {"uuid": "all", "catalog_key": "other", "title": "of another catalog"},
        {"uuid": "new", "title": "N", "current_price": 5.0},
        {"uuid": "same", "title": "A", "current_price": 1.0, "in_stock": True, "gender": "male"},
        {"uuid": "price", "title": "A", "current_price": 2.0, "currency": "EUR"},
        {"uuid": "all", "title": None, "current_price": None, "in_stock": False},
    )
    frame = product_changes(SnapshotPair(now, before)).collect()

    assert frame.schema == CHANGES_SCHEMA
    rows = {row["uuid"]: row for row in frame.iter_rows(named=True)}
    assert list(rows) == ["all", "gone", "new", "price"]
    assert rows["all"]["changed"] == ["title", "price", "availability"]
    assert (rows["all"]["old_title"], rows["all"]["new_title"]) == ("A", None)
    assert (rows["all"]["old_in_stock"], rows["all"]["new_in_stock"]) == (True, False)
    assert rows["price"]["changed"] == ["price"]
    assert (rows["price"]["old_current_price"], rows["price"]["new_current_price"]) == (1.0, 2.0)
    assert (rows["gone"]["change"], rows["gone"]["changed"]) == ("disappeared", None)
    assert (rows["gone"]["old_current_price"], rows["gone"]["new_current_price"]) == (3.0, None)
    assert rows["gone"]["product_url"] == "https://shop/gone"
    assert (rows["new"]["change"], rows["new"]["new_title"]) == ("appeared", "N")


def test_a_column_that_the_service_began_to_send_is_no_change() -> None:
    before = snapshot(
        {"uuid": "same", "current_price": 1.0}, {"uuid": "price", "current_price": 1.0}
    )
    now = snapshot(
        {"uuid": "same", "current_price": 1.0, "currency": "EUR", "in_stock": True},
        {"uuid": "price", "current_price": 2.0, "currency": "EUR", "in_stock": True},
    )
    for pair in (SnapshotPair(now, before), SnapshotPair(before, now)):
        (row,) = product_changes(pair).collect().iter_rows(named=True)
        assert (row["uuid"], row["changed"]) == ("price", ["price"])


def test_without_a_previous_snapshot_every_product_appeared() -> None:
    frame = product_changes(SnapshotPair(snapshot({"uuid": "a"}, {"uuid": "b"}), None)).collect()
    assert frame["change"].to_list() == ["appeared", "appeared"]
    assert frame.schema == CHANGES_SCHEMA


def test_two_empty_snapshots_have_no_changes() -> None:
    frame = product_changes(SnapshotPair(snapshot(), snapshot())).collect()
    assert frame.is_empty()
    assert frame.schema == CHANGES_SCHEMA


@pytest.mark.parametrize(
    ("column", "old", "new", "changed"),
    [
        ("title", "A", "B", "title"),
        ("current_price", 1.0, 2.0, "price"),
        ("original_price", 1.0, None, "price"),
        ("currency", "EUR", "USD", "price"),
        ("in_stock", True, False, "availability"),
        ("is_active", False, True, "availability"),
    ],
)
def test_a_changed_column_is_a_change_of_its_kind(
    column: str, old: Any, new: Any, changed: str
) -> None:
    others = {"uuid": "other", column: old}
    pair = SnapshotPair(
        snapshot({"uuid": "a", column: new}, others), snapshot({"uuid": "a", column: old}, others)
    )
    (row,) = product_changes(pair).collect().iter_rows(named=True)
    assert (row["uuid"], row["change"], row["changed"]) == ("a", "changed", [changed])
    assert (row[f"old_{column}"], row[f"new_{column}"]) == (old, new)


def test_rows_are_in_the_order_of_catalog_and_uuid() -> None:
    keys = [("b", "1"), ("a", "2"), ("b", "0"), ("a", "1")]
    rows = [{"uuid": uuid, "catalog_key": catalog} for catalog, uuid in keys]
    frame = product_changes(SnapshotPair(snapshot(*rows), None)).collect()
    assert frame.select("catalog_key", "uuid").rows() == sorted(keys)


def test_every_column_is_described() -> None:
    assert CHANGES_DESCRIPTIONS.keys() == CHANGES_SCHEMA.keys()


WHOLE = {"octogen.search": '{"catalogs": ["acme", "zen"], "page_size": 50}'}
FILTERED = {"octogen.search": '{"q": "boots"}'}


@pytest.mark.parametrize("provenance", [{}, WHOLE, {"octogen.search": '{"of": "the future"}'}])
def test_the_products_of_a_catalog_that_vanished_did_not_disappear(
    provenance: dict[str, str],
) -> None:
    before = snapshot(
        {"uuid": "a", "catalog_key": "acme"},
        {"uuid": "b", "catalog_key": "acme"},
        {"uuid": "z", "catalog_key": "zen"},
        {"uuid": "n"},
    )
    now = snapshot({"uuid": "a", "catalog_key": "acme"}, {"uuid": "n"})
    pair = SnapshotPair(now, before, provenance=provenance)
    assert product_changes(pair).collect()["uuid"].to_list() == ["b"]
    assert vanished_catalogs(pair) == ["zen"]


def test_nothing_disappeared_if_every_catalog_vanished() -> None:
    before = snapshot({"uuid": "a", "catalog_key": "acme"}, {"uuid": "z", "catalog_key": "zen"})
    pair = SnapshotPair(snapshot(), before, provenance=WHOLE)
    assert product_changes(pair).collect().is_empty()
    assert vanished_catalogs(pair) == ["acme", "zen"]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "search",
    [
        '{"q": "boots"}',
        # Values and names that an earlier version took without a check.
        '{"facets": [{"name": "gender", "values": ["women"]}]}',
        '{"facets": [{"name": "sex", "values": ["female"]}]}',
    ],
)
def test_a_search_may_lose_all_products_of_a_catalog(search: str) -> None:
    before = snapshot({"uuid": "a", "catalog_key": "acme"}, {"uuid": "z", "catalog_key": "zen"})
    now = snapshot({"uuid": "a", "catalog_key": "acme"})
    pair = SnapshotPair(now, before, provenance={"octogen.search": search})
    assert product_changes(pair).collect()["uuid"].to_list() == ["z"]
    assert vanished_catalogs(pair) == []


@pytest.mark.parametrize(
    ("read", "disappeared", "vanished"),
    [('["acme", "Zen"]', ["z"], []), ('["acme"]', [], ["zen"]), ("[]", [], ["zen"])],
)
def test_a_catalog_that_a_search_did_not_read_vanished(
    read: str, disappeared: list[str], vanished: list[str]
) -> None:
    before = snapshot({"uuid": "z", "catalog_key": "zen"}, {"uuid": "n"})
    provenance = {**FILTERED, "octogen.catalogs": read}
    pair = SnapshotPair(snapshot({"uuid": "n"}), before, provenance=provenance)
    assert product_changes(pair).collect()["uuid"].to_list() == disappeared
    assert vanished_catalogs(pair) == vanished


def test_a_catalog_of_the_first_snapshot_cannot_have_vanished() -> None:
    assert vanished_catalogs(SnapshotPair(snapshot({"uuid": "a"}), None)) == []
