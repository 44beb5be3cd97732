"""Costs at Octogen and Google, as reported by Dagster runs."""
