"""Octogen's REST API over HTTP. Does not depend on Polars or Dagster."""
