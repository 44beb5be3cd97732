"""Polars schemas for the snapshot tables."""

from octogen_dagster.alerts.events import ALERTS_SCHEMA
from octogen_dagster.brands.table import BRANDS_SCHEMA
from octogen_dagster.changes.table import CHANGES_SCHEMA
from octogen_dagster.frames.columns import DETAIL_SCHEMA, PRODUCT_SCHEMA
from octogen_dagster.history.table import HISTORY_SCHEMA

__all__ = [
    "ALERTS_SCHEMA",
    "BRANDS_SCHEMA",
    "CHANGES_SCHEMA",
    "DETAIL_SCHEMA",
    "HISTORY_SCHEMA",
    "PRODUCT_SCHEMA",
]
