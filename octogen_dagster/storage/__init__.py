"""Files that are published whole or not at all, on a disk or in a bucket. Knows no Dagster."""
