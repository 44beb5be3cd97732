"""DuckDB's `read_json` over pages that urllib3 saved as files."""

from pathlib import Path

import duckdb
import urllib3

from benchmarks.cursor import next_cursor
from benchmarks.source import API_KEY, Source

_QUERY = """
COPY (
    SELECT unnest(item) FROM (SELECT unnest(items) AS item FROM read_json('{pages}/*.json'))
) TO '{path}' (FORMAT parquet, COMPRESSION zstd)
"""


def read(source: Source, folder: Path) -> Path:
    """Save all pages, then let DuckDB infer their schema and write the products."""
    pages = folder / "pages"
    pages.mkdir(parents=True)
    http, body = urllib3.PoolManager(), source.search()
    url, headers = f"{source.base_url}/products/search", {"Authorization": f"Bearer {API_KEY}"}
    number = 0
    while number == 0 or body["cursor"]:
        page = http.request("POST", url, json=body, headers=headers).data
        Path(pages, f"{number:06}.json").write_bytes(page)
        body["cursor"] = next_cursor(page)
        number += 1
    path = folder / "products.parquet"
    duckdb.connect().execute(_QUERY.format(pages=pages, path=path))
    return path
