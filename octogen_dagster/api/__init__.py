"""Octogen's REST API over HTTP, independent of Polars and Dagster."""
