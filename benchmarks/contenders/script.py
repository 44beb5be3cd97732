"""A script of some 20 lines: urllib3, pyarrow's JSON reader, Parquet. It checks and saves nothing.

Its columns and their types are those of the first block of pages.
"""

import io
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.json
import pyarrow.parquet
import urllib3

from benchmarks.cursor import next_cursor
from benchmarks.source import API_KEY, Source

_PAGES_PER_BLOCK = 20


def read(source: Source, folder: Path) -> Path:
    """Write the pages of each block as a row group."""
    folder.mkdir()
    path, writer = folder / "products.parquet", None
    for table in tables(source):
        writer = writer or pa.parquet.ParquetWriter(path, table.schema, compression="zstd")
        writer.write_table(table)
    assert writer is not None
    writer.close()
    return path


def tables(source: Source) -> Iterator[pa.Table]:
    """Yield the products of each block of pages."""
    http, body = urllib3.PoolManager(), source.search()
    url, headers = f"{source.base_url}/products/search", {"Authorization": f"Bearer {API_KEY}"}
    block, options = list[bytes](), None
    while True:
        page = http.request("POST", url, json=body, headers=headers).data
        block.append(page)
        body["cursor"] = next_cursor(page)
        if len(block) == _PAGES_PER_BLOCK or body["cursor"] is None:
            pages = pa.json.read_json(io.BytesIO(b"\n".join(block)), parse_options=options)
            options = options or pa.json.ParseOptions(explicit_schema=pages.schema)
            block.clear()
            yield pa.Table.from_struct_array(pages["items"].combine_chunks().flatten())
        if body["cursor"] is None:
            return
