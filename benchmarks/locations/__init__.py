"""Code locations for `dagster asset materialize`."""
