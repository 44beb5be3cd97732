"""What `octogen-dagster demo` shows: catalogs and products of the sandbox as snapshots."""
