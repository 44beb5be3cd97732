"""Checks for stored tables: product columns, and the checks for each table kind."""
