"""Listings and subscriptions for catalogs shared over BigQuery Analytics Hub.

This package imports neither Dagster nor Polars. Google's libraries are imported only inside
functions.
"""
