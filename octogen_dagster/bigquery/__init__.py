"""Dagster assets, checks, resources and a sensor for listings shared in BigQuery."""
