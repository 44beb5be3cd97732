"""The demo: a pipeline that reads a sandbox's catalogs into snapshots and linked datasets."""
