"""Reads the pages of product searches into Polars frames. Does not depend on Dagster."""
