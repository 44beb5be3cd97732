"""Snapshots in Dagster: how they are published, loaded and reported. Knows no kind of table."""
