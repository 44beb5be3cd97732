"""Octogen's MCP tools and the login that they require.

This package imports neither Dagster nor Polars.
"""
