"""Dagster assets that synchronize coverage URL lists and match the URLs with products."""
