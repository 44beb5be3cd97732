"""Octogen and Google costs, as reported by Dagster runs."""
