"""Octogen over HTTP: httpx, pydantic and msgspec; knows no Polars and no Dagster."""
