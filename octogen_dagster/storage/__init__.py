"""Atomic file publishing on a disk or in a bucket. Independent of Dagster."""
