"""Catalogs that Octogen shares over BigQuery Analytics Hub: their listings and subscriptions.

Knows no Dagster and no Polars; google is imported where it is used.
"""
