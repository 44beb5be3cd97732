"""A Dagster project whose only definitions are in a YAML file."""
