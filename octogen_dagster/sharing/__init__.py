"""Catalogs shared over BigQuery Analytics Hub: discovery, subscription, Octogen's control plane.

Knows no Dagster and no Polars; google and mcp are imported where they are used.
"""
