"""The benchmarks. Each module has `run(generations, rounds)`, which gives rows of the table."""
