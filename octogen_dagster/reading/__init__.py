"""Reads searches: turns the service's pages into Polars frames. Does not depend on Dagster."""
