"""The changes between two product snapshots, which a history is made of."""

from __future__ import annotations

from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from octogen_dagster.changes.table import CHANGES_SCHEMA
from octogen_dagster.frames.columns import PRODUCT_SCHEMA
from octogen_dagster.frames.stored import WATCHED
from tests.properties.snapshots import changes_of

Products = dict[tuple[str | None, str], dict[str, Any]]
WATCHED_COLUMNS = [column for columns in WATCHED.values() for column in columns]


def snapshot(*products: dict[str, Any]) -> pl.LazyFrame:
    """A snapshot of products, given by some of their columns."""
    filled = [{"product_url": f"https://shop/{row['uuid']}", **row} for row in products]
    return pl.DataFrame(filled, schema=PRODUCT_SCHEMA).lazy()


WHOLE = {"octogen.search": '{"catalogs": ["acme", "zen"], "page_size": 50}'}


@pytest.mark.parametrize("file_metadata", [{}, WHOLE, {"octogen.search": '{"of": "the future"}'}])
def test_the_products_of_a_catalog_that_vanished_did_not_disappear(
    file_metadata: dict[str, str],
) -> None:
    before = snapshot(
        {"uuid": "a", "catalog_key": "acme"},
        {"uuid": "b", "catalog_key": "acme"},
        {"uuid": "z", "catalog_key": "zen"},
        {"uuid": "n"},
    )
    now = snapshot({"uuid": "a", "catalog_key": "acme"}, {"uuid": "n"})
    changes, vanished = changes_of(before, now, file_metadata)
    assert changes["uuid"].to_list() == ["b"]
    assert vanished == ["zen"]


GENERATED = st.dictionaries(
    st.tuples(st.sampled_from([None, "acme", "zen"]), st.sampled_from(["", "1", "2", "3"])),
    st.fixed_dictionaries(
        {
            "title": st.sampled_from([None, "", "A", "EUR"]),
            "current_price": st.sampled_from([None, 0.0, -0.0, 1.0]),
            "original_price": st.sampled_from([None, 0.0, 1.0]),
            "currency": st.sampled_from([None, "", "EUR"]),
            "in_stock": st.sampled_from([None, True, False]),
            "is_active": st.sampled_from([None, True, False]),
        }
    ),
)


@pytest.mark.slow
@given(before=GENERATED, now=GENERATED, empty=st.sets(st.sampled_from([*WATCHED_COLUMNS])))
def test_the_changes_are_those_of_comparing_each_product_in_turn(
    before: Products, now: Products, empty: set[str]
) -> None:
    for values in before.values():
        values.update(dict.fromkeys(empty))
    changes, _ = changes_of(as_snapshot(before), as_snapshot(now), WHOLE)
    assert changes.schema == CHANGES_SCHEMA
    assert changes.rows(named=True) == changes_one_by_one(before, now)


def as_snapshot(products: Products) -> pl.LazyFrame:
    return snapshot(
        *({"catalog_key": key, "uuid": uuid, **rest} for (key, uuid), rest in products.items())
    )


def changes_one_by_one(before: Products, now: Products) -> list[dict[str, Any]]:
    """The rows of `product_changes` for snapshots of whole catalogs, without Polars."""
    catalogs = {catalog for catalog, _ in now}
    before = {key: values for key, values in before.items() if key[0] in catalogs}
    in_both = {catalog for catalog, _ in before}
    common = [row for (catalog, _), row in now.items() if catalog in in_both]
    for values in (*before.values(), *now.values()):
        values["is_active"] = values["is_active"] is not False
    compared = {
        column
        for column in WATCHED_COLUMNS
        if column not in ("currency", "in_stock")
        or all(any(row[column] is not None for row in part) for part in (before.values(), common))
    }
    rows = []
    for key in sorted(before.keys() | now.keys(), key=lambda key: (key[0] or "", key[1])):
        old, new = before.get(key), now.get(key)
        change = "appeared" if old is None else "disappeared" if new is None else "changed"
        changed = None
        if old is not None and new is not None:
            differs = {column for column in compared if old[column] != new[column]}
            changed = [kind for kind, columns in WATCHED.items() if differs & {*columns}]
            if not changed:
                continue
        values = {
            f"{when}_{column}": products[column] if products else None
            for column in WATCHED_COLUMNS
            for when, products in (("old", old), ("new", new))
        }
        catalog, uuid = key
        url = f"https://shop/{uuid}"
        rows.append(
            {"catalog_key": catalog, "uuid": uuid, "product_url": url}
            | {"change": change, "changed": changed, **values}
        )
    return rows
