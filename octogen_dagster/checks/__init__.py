"""Checks for snapshots: product checks, and the checks that a table kind defines."""
