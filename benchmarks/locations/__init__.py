"""Code locations that `dagster asset materialize` runs."""
