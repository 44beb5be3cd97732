"""Dagster assets for coverage URL lists: synchronize a list and match its daily export."""
