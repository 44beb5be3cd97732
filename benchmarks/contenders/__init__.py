"""What is compared. Each module has `read(source, folder)`.

It reads every product and returns the Parquet files it made (a path, maybe with `*`), or the number
of products if it threw them away.
"""
