"""Reads of a small catalog, alone in their process, where imports and set-up are paid for.

`python -m benchmarks.small_scans scan|script SOURCE` prints the seconds of a read, which is a new
scan or a new connection each time, and its number of products.
"""

import json
import statistics
import sys
import time
from collections.abc import Callable

from benchmarks.source import API_KEY, PAGE_SIZE, Source

_WARM_UPS, _REPEATS = 3, 20


def _scan(source: Source) -> int:
    from octogen_dagster import ProductSearch, scan_products

    search = ProductSearch(catalogs=source.catalogs, page_size=PAGE_SIZE)
    return scan_products(search, api_key=API_KEY, base_url=source.base_url).collect().height


def _script(source: Source) -> int:
    import pyarrow as pa

    from benchmarks.contenders.script import tables

    return int(pa.concat_tables(tables(source)).num_rows)


def _measure(read: Callable[[Source], int], source: Source) -> dict[str, float]:
    seconds, products = [], set()
    for _ in range(_WARM_UPS + _REPEATS):
        began = time.perf_counter()
        products.add(read(source))
        seconds.append(time.perf_counter() - began)
    (number,) = products
    return {"seconds": statistics.median(seconds[_WARM_UPS:]), "products": number}


if __name__ == "__main__":
    what, text = sys.argv[1:]
    read = _scan if what == "scan" else _script
    print("\n" + json.dumps(_measure(read, Source.from_json(text))))
