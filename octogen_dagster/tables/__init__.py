"""Snapshots as tables of a database or a warehouse, where analysts work."""
