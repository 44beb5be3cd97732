"""Octogen's MCP tools, and the login to them. Knows no Dagster and no Polars."""
