"""Consecutive pages of a read, saved so that they survive a crash. Knows no Dagster."""
