"""Publishes snapshots of any kind of table, loads them and reports them to Dagster."""
