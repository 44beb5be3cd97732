"""The data of a report: the last days of a history, with the brand and the category of products."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from typing import Any

import polars as pl

from octogen_dagster.errors import OctogenSnapshotError
from octogen_dagster.frames.brands import brand_name
from octogen_dagster.frames.history_files import history_files, scan_history
from octogen_dagster.frames.observed import Contents
from octogen_dagster.store import Store

_PRODUCT = ["catalog_key", "uuid"]
_MAX_TITLE_LENGTH = 160
_SEPARATOR = " \u203a "
"""What stands between the levels of a category, here and in the page."""


def report_data(
    base_dir: str,
    *,
    asset: str,
    days: int,
    storage_options: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the rows of a history that held in its last days, as columns of JSON.

    Texts that repeat are lists, and columns hold their places in them; -1 stands for none. The rows
    of a product follow each other, and `rows` of the products says how many they are.

    Raises:
        OctogenSnapshotError: There is no such history, it is empty, or it cannot be read.
    """
    history = scan_history(base_dir, asset=asset, storage_options=storage_options)
    times = pl.concat([history.select(time=name) for name in ("valid_from", "valid_to")])
    until = times.select(pl.col("time").max()).collect(engine="streaming").item()
    if until is None:
        raise OctogenSnapshotError(
            f"The history {asset} has no rows yet, so there is nothing to report. Materialize it "
            "after its products."
        )
    since = until - timedelta(days=days)
    rows = (
        history.filter(pl.col("valid_to").is_null() | (pl.col("valid_to") > since))
        .select(
            *_PRODUCT,
            "product_url",
            "valid_from",
            "valid_to",
            "is_current",
            pl.col("title").str.slice(0, _MAX_TITLE_LENGTH),
            "current_price",
            "currency",
            "in_stock",
        )
        .collect(engine="streaming")
        .sort(*_PRODUCT, "valid_from")
    )
    products = rows.group_by(_PRODUCT, maintain_order=True).agg(
        pl.col("title", "product_url").last(), pl.len().alias("rows")
    )
    store = Store(base_dir, storage_options)
    files = history_files(store, asset).values()
    newest = [Contents.read(store.metadata(key)).products for key in files]
    described = pl.concat([_brands_and_categories(store, key) for key in newest])
    products = products.join(
        described, on=_PRODUCT, how="left", nulls_equal=True, maintain_order="left"
    )
    moments = pl.concat([rows["valid_from"], rows["valid_to"]]).drop_nulls().unique().sort()
    moment = pl.DataFrame({"time": moments, "place": range(len(moments))})
    begins, ends = (
        rows.select(time=name).join(moment, on="time", how="left", maintain_order="left")["place"]
        for name in ("valid_from", "valid_to")
    )
    catalogs, catalog = _places(products["catalog_key"])
    brands, brand = _places(products["brand"])
    categories, category = _places(products["category"])
    currencies, currency = _places(rows["currency"])
    return {
        "asset": asset,
        "since": since.timestamp(),
        "until": until.timestamp(),
        "made_at": datetime.now(timezone.utc).timestamp(),
        "times": [each.timestamp() for each in moments],
        "catalogs": catalogs,
        "brands": brands,
        "categories": categories,
        "currencies": currencies,
        "products": {
            "title": products["title"].fill_null("").to_list(),
            "url": products["product_url"].fill_null("").to_list(),
            "catalog": catalog,
            "brand": brand,
            "category": category,
            "rows": products["rows"].to_list(),
        },
        "rows": {
            "begin": begins.to_list(),
            "end": ends.fill_null(-1).to_list(),
            "price": rows["current_price"].to_list(),
            "currency": currency,
            "stock": rows["in_stock"].cast(pl.Int8).fill_null(-1).to_list(),
        },
    }


def _places(texts: pl.Series) -> tuple[list[str], list[int]]:
    """The distinct values of a column in their order, and the place of each value in them."""
    values = texts.drop_nulls().unique().sort()
    places = pl.DataFrame({"text": values, "place": range(len(values))})
    joined = pl.DataFrame({"text": texts}).join(
        places, on="text", how="left", maintain_order="left"
    )
    return values.to_list(), joined["place"].fill_null(-1).to_list()


def _brands_and_categories(store: Store, key: str) -> pl.DataFrame:
    """The brand and the category of each product in a file of snapshots, if it is there."""
    schema = pl.Schema(dict.fromkeys([*_PRODUCT, "brand", "category"], pl.String))
    if not key or not store.exists(key):
        return pl.DataFrame(schema=schema)
    snapshot = store.scan(key)
    columns = snapshot.collect_schema()
    category, path = pl.lit(None, pl.String), pl.col("category_path")
    if columns.get("category_path") == pl.List(pl.String):
        levels = path.list.join(_SEPARATOR, ignore_nulls=True)
        category = pl.when(levels != "").then(levels)
    found = snapshot.select(*_PRODUCT, brand_name(columns).alias("brand"), category=category)
    return found.cast(schema).collect(engine="streaming").unique(_PRODUCT, maintain_order=True)
