"""Publishes, loads and reports snapshots in Dagster. Works with any kind of table."""
