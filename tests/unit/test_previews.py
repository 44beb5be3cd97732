"""The rows and columns that are shown of a snapshot."""

from __future__ import annotations

from typing import Any

import polars as pl

from octogen_dagster.frames.changes import SnapshotPair, product_changes
from octogen_dagster.frames.columns import PRODUCT_SCHEMA
from octogen_dagster.frames.previews import preview, shops


def products(*rows: dict[str, Any]) -> pl.LazyFrame:
    known = {"catalog_key": "acme", "product_url": "https://shop.example/1", "currency": "EUR"}
    return pl.LazyFrame([known | row for row in rows], schema=PRODUCT_SCHEMA)


def test_changes_are_shown_with_the_values_before_and_after() -> None:
    before = products(
        {"uuid": "1", "title": "Boot", "current_price": 20.0, "in_stock": True},
        {"uuid": "2", "title": "Sandal", "current_price": 5.0},
        {"uuid": "3", "title": "Clog", "current_price": 5.0},
    )
    after = products(
        {"uuid": "1", "title": "Boot", "current_price": 15.0, "in_stock": False},
        {"uuid": "3", "title": "Clog"},
        {"uuid": "4", "title": "Slipper", "current_price": 7.0},
    )
    changes = product_changes(SnapshotPair(after, before)).collect().lazy()
    columns = ("change", "title", "current_price", "currency")
    assert preview(changes).select(columns).rows() == [
        ("changed", "Boot", "20.0 → 15.0", "EUR"),
        ("changed", "Clog", "5.0 → none", "EUR"),
        ("appeared", "Slipper", "7.0", "EUR"),
        ("disappeared", "Sandal", "5.0", "EUR"),
    ]
    assert preview(changes)["in_stock"].to_list() == ["true → false", None, None, None]


def test_a_minor_column_of_changes_is_shown_if_it_changed() -> None:
    known = {"uuid": "1", "title": "Boot", "is_active": True, "current_price": 2.0}
    before = products({**known, "original_price": 9.0})
    for after, columns in (
        (products({**known, "original_price": 9.0, "current_price": 1.0}), []),
        (products({**known, "original_price": 8.0}), ["original_price"]),
        (products({**known, "original_price": 9.0, "is_active": False}), ["is_active"]),
    ):
        shown = preview(product_changes(SnapshotPair(after, before)).collect().lazy())
        assert [name for name in ("original_price", "is_active") if name in shown] == columns


def test_the_shops_are_those_of_the_pages_the_largest_first() -> None:
    pages = ["a.example/1", "b.example:8443/x", "b.example:8443/y?z"]
    rows = [{"uuid": page, "product_url": f"https://{page}"} for page in pages]
    frame = products(*rows, {"uuid": "4", "product_url": "mailto:shop"})
    assert shops(frame) == ["https://b.example:8443", "https://a.example"]
