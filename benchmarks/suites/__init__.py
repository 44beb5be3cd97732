"""The benchmarks. Each module has `run(generations, rounds, before)`, which yields table rows.

`before` is the checkout of an earlier commit to be measured too, or None.
"""
