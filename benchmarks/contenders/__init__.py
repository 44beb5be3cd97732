"""The contenders. Each module has `read(source, folder)`.

It reads every product. It returns the path of the Parquet files that it wrote, perhaps with `*`, or
the number of products if it discarded them.
"""
