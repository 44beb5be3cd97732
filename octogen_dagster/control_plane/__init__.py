"""Octogen's MCP tools, and the login to them. Imports neither Dagster nor Polars."""
