"""The demo: catalogs and products of a sandbox as snapshots and linked datasets."""
