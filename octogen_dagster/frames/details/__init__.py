"""The full view of each product of a snapshot. Knows no Dagster."""
