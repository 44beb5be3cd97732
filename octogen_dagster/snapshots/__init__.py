"""Dagster, first wing: catalogs as Parquet snapshots. Does not import `bigquery`."""
