"""Components for the YAML of a Dagster project, and what writes and checks that YAML."""
