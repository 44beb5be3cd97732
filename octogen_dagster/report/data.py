"""The data of a report: the last days of a history, with the brand and the category of products."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from typing import Any

import polars as pl

from octogen_dagster.errors import OctogenSnapshotError
from octogen_dagster.frames.history_files import scan_history
from octogen_dagster.store import Store, path_component

_PRODUCT = ["catalog_key", "uuid"]
_DAY = re.compile(r"\d{4}-\d{2}-\d{2}")
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
    snapshots = _snapshots(Store(base_dir, storage_options), asset.removesuffix("_history"))
    products = products.join(
        snapshots, on=_PRODUCT, how="left", nulls_equal=True, maintain_order="left"
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


def _snapshots(store: Store, asset: str) -> pl.DataFrame:
    """The brand and the category of each product of an asset's last snapshots, if it has any."""
    folder = "/".join(map(path_component, asset.split("/")))
    last: dict[str, str] = {}
    names = [each.key for each in store.files(folder)] + [f"{folder}.parquet"]
    for key in sorted(names):
        is_hidden = any(part.startswith(".") for part in key.split("/"))
        if key.endswith(".parquet") and not is_hidden:
            last[_DAY.sub("", key)] = key  # of the days of a catalog the last one
    columns = [
        *_PRODUCT,
        pl.col("brand").struct.field("name").alias("brand"),
        pl.col("category_path").list.join(_SEPARATOR, ignore_nulls=True).alias("category"),
    ]
    schema = {**dict.fromkeys(_PRODUCT, pl.String), "brand": pl.String, "category": pl.String}
    found = [pl.DataFrame(schema=schema)]
    for key in last.values():
        if store.exists(key):
            frame = store.scan(key)
            names_in = frame.collect_schema().names()
            if {*_PRODUCT, "brand", "category_path"} <= {*names_in}:
                found.append(frame.select(columns).collect(engine="streaming"))
    return pl.concat(found).unique(_PRODUCT, keep="last", maintain_order=True)
