"""Benchmarks: `uv run --group benchmarks python -m benchmarks`. What is measured: README.md."""
