"""Listings and subscriptions for catalogs shared over BigQuery Analytics Hub.

This package imports neither Dagster nor Polars, and google only where it is used.
"""
