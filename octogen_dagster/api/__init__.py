"""Octogen's REST API over HTTP. Knows no Polars and no Dagster."""
