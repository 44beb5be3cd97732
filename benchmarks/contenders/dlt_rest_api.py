"""The `rest_api` source of dlt to Parquet files, with nested values as JSON."""

import os
from pathlib import Path

os.environ["RUNTIME__DLTHUB_TELEMETRY"] = "false"

import dlt
from dlt.sources.helpers.rest_client.paginators import JSONResponseCursorPaginator
from dlt.sources.rest_api import rest_api_source

from benchmarks.source import API_KEY, Source


def read(source: Source, folder: Path) -> Path:
    """Extract, normalize and load."""
    products = rest_api_source(
        {
            "client": {
                "base_url": source.base_url,
                "auth": {"type": "bearer", "token": API_KEY},
                "paginator": JSONResponseCursorPaginator(
                    cursor_path="nextCursor", cursor_body_path="cursor"
                ),
            },
            "resources": [
                {
                    "name": "products",
                    "endpoint": {
                        "path": "products/search",
                        "method": "POST",
                        "json": source.search(),
                        "data_selector": "items",
                    },
                }
            ],
        },
        max_table_nesting=0,
    )
    pipeline = dlt.pipeline(
        pipeline_name=folder.name,
        pipelines_dir=str(folder / "pipelines"),
        destination=dlt.destinations.filesystem(bucket_url=str(folder)),
        dataset_name="dataset",
    )
    pipeline.run(products, loader_file_format="parquet")
    return folder / "dataset" / "products" / "*.parquet"
