"""Octogen product catalogs as Dagster assets."""
