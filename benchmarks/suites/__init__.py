"""The benchmarks. Each module has `run(generations, rounds)`, which yields rows of the table."""
