"""Reads stored price positions for the report."""

from __future__ import annotations

import polars as pl

from octogen_dagster.errors import OctogenSnapshotError
from octogen_dagster.position.table import POSITION_SCHEMA
from octogen_dagster.storage.store import Store, asset_path


def stored_position(store: Store, asset: str) -> pl.DataFrame | None:
    """Return a stored position, or None if it does not exist. NaN and infinity become null."""
    key = f"{asset_path(asset)}.parquet"
    if not store.exists(key):
        return None
    rows = store.scan(key)
    if not POSITION_SCHEMA.keys() <= rows.collect_schema().keys():
        raise OctogenSnapshotError(
            f"Asset {asset} is not a price position. Pass an asset built by "
            "build_price_position_asset."
        )
    floats = pl.col(pl.Float64, pl.Float32)
    return rows.with_columns(pl.when(floats.is_finite()).then(floats)).collect()
