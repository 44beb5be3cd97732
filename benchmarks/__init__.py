"""Benchmarks: `uv run --group benchmarks python -m benchmarks`; README.md explains them."""
