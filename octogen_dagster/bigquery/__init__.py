"""Dagster, second wing: shared listings in BigQuery. Does not import `snapshots`."""
