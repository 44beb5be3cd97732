"""dlt at its best: a resource yields the pages as Arrow tables, which dlt does not normalize."""

import os
from pathlib import Path

os.environ["RUNTIME__DLTHUB_TELEMETRY"] = "false"

import dlt

from benchmarks.contenders.script import tables
from benchmarks.source import Source


def read(source: Source, folder: Path) -> Path:
    """Extract, normalize and load."""
    products = dlt.resource(tables, name="products")
    pipeline = dlt.pipeline(
        pipeline_name=folder.name,
        pipelines_dir=str(folder / "pipelines"),
        destination=dlt.destinations.filesystem(bucket_url=str(folder)),
        dataset_name="dataset",
    )
    pipeline.run(products(source), loader_file_format="parquet")
    return folder / "dataset" / "products" / "*.parquet"
