"""Histories that tests read: days of products that are written by hand, through the builders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl

from octogen_dagster import catalog_partitions
from octogen_dagster.schemas import PRODUCT_SCHEMA
from tests.projects import QUIET, GivenProducts, given_frame

__all__ = ["ASSET", "QUIET", "Product", "day", "make_history", "product"]

ASSET = "octogen_products_history"
Product = dict[str, Any]


def day(number: int, hour: int = 6) -> datetime:
    """The time of the snapshot of a day in November 2026."""
    return datetime(2026, 11, number, hour, tzinfo=UTC)


def product(uuid: str, price: float | None, **values: Any) -> Product:
    """A product in stock, with a price in euros."""
    return {
        "uuid": uuid,
        "product_url": f"https://www.acme.example/{uuid}",
        "title": uuid.title(),
        "current_price": price,
        "currency": "EUR",
        "in_stock": True,
        "is_active": True,
        **values,
    }


def make_history(
    base_dir: Path,
    days: Mapping[datetime, Sequence[Product] | pl.DataFrame],
    catalog: str | None = "acme",
    *,
    name: str = ASSET,
    schema: pl.Schema = PRODUCT_SCHEMA,
) -> None:
    """Store a catalog's products as they were at each time, with their history.

    Without a catalog it is a search, whose products say their `catalog_key` themselves.
    """
    with dg.DagsterInstance.ephemeral() as instance:
        if catalog:
            instance.add_dynamic_partitions("octogen_catalogs", [catalog])
        shop = GivenProducts(base_dir, instance, catalog_partitions if catalog else None, name=name)
        for at, rows in days.items():
            shop.frame = given_frame(at, rows, catalog, schema)
            shop.update(partition_key=catalog)


def without_brands(base_dir: Path) -> None:
    """Store the history as it was before it had brands and categories."""
    for file in [*base_dir.glob(f"{ASSET}.parquet"), *base_dir.glob(f"{ASSET}/*.parquet")]:
        metadata = pl.read_parquet_metadata(file)
        kept = {name: text for name, text in metadata.items() if name.startswith("octogen.")}
        pl.read_parquet(file).drop("brand_name", "category").write_parquet(file, metadata=kept)
