"""The rows and columns that are shown of a snapshot."""

from __future__ import annotations

from typing import Any

import polars as pl

from octogen_dagster.frames.brands import BRANDS_SCHEMA
from octogen_dagster.frames.changes import CHANGES_SCHEMA, SnapshotPair, product_changes
from octogen_dagster.frames.columns import DETAIL_SCHEMA, PRODUCT_SCHEMA
from octogen_dagster.frames.previews import preview, shops


def products(*rows: dict[str, Any]) -> pl.LazyFrame:
    known = {"catalog_key": "acme", "product_url": "https://shop.example/1", "currency": "EUR"}
    return pl.LazyFrame([known | row for row in rows], schema=PRODUCT_SCHEMA)


def test_products_are_shown_by_the_columns_that_tell_most() -> None:
    boot = {"uuid": "1", "title": "Boot", "brand": {"name": "Acme"}, "current_price": 9.5}
    shown = preview(products(boot, {"uuid": "2", "in_stock": True}))
    assert shown.columns == [
        "title", "brand", "current_price", "currency", "in_stock", "product_url",
    ]  # fmt: skip
    assert shown["title"].to_list() == ["Boot", None]


def test_columns_that_are_null_throughout_are_left_out() -> None:
    assert preview(products({"uuid": "1"})).columns == ["currency", "product_url"]


def test_a_table_of_others_is_shown_by_its_first_columns_whatever_their_names() -> None:
    names = [f"c{number}" for number in range(6)] + ["title", "brand", "product_url"]
    frame = pl.LazyFrame({name: [1, None] for name in names} | {"c0": [None, None]})
    assert preview(frame).columns == [*names[1:]]
    assert len(preview(pl.LazyFrame({"n": range(20)}))) == 5


def test_no_rows_are_shown_by_their_columns() -> None:
    for schema in (PRODUCT_SCHEMA, CHANGES_SCHEMA, DETAIL_SCHEMA, BRANDS_SCHEMA):
        shown = preview(schema.to_frame().lazy())
        assert shown.is_empty()
        assert len(shown.columns) >= 5


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


def test_changes_of_each_kind_are_shown_however_many_there_are() -> None:
    many = [{"uuid": f"{number:03}", "current_price": 1.0} for number in range(40)]
    before, after = many[:30], [*({**each, "current_price": 2.0} for each in many[20:])]
    changes = product_changes(SnapshotPair(products(*after), products(*before))).collect().lazy()
    kinds = preview(changes)["change"].to_list()
    assert kinds == ["changed"] * 5 + ["appeared"] * 2 + ["disappeared"] * 2


def test_the_shops_are_those_of_the_pages_the_largest_first() -> None:
    pages = ["a.example/1", "b.example:8443/x", "b.example:8443/y?z"]
    rows = [{"uuid": page, "product_url": f"https://{page}"} for page in pages]
    frame = products(*rows, {"uuid": "4", "product_url": "mailto:shop"})
    assert shops(frame) == ["https://b.example:8443", "https://a.example"]
