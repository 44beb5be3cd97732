"""Catalogs that Octogen shares over BigQuery Analytics Hub: their listings and subscriptions.

Knows no Dagster, no Polars and no control_plane; google is imported where it is used.
"""
