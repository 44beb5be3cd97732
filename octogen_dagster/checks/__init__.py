"""Checks for snapshots: the product checks and the checks that a table kind defines."""
