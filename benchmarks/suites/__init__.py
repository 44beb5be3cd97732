"""The benchmarks. Each module has `run(generations, rounds)`, which yields table rows."""
