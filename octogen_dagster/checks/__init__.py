"""Snapshot checks: the product checks, and the checks of a table kind such as a history."""
