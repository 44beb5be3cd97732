"""Ticks of the catalog sensor, alone in their process.

`python -m benchmarks.ticks tick|days|due BASE_URL` prints the seconds of a tick, its number
of catalogs and the bytes of its cursor. `tick` measures the sensor's function, from its call to its
result, when no catalog was indexed anew, `days` so with partitions of catalogs and days, and `due`
when each catalog was.
"""

import contextlib
import itertools
import json
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Generator
from datetime import UTC, datetime

from benchmarks.materializations import materialize
from benchmarks.source import API_KEY

_TICKS = {"tick": 20, "days": 5, "due": 3}
_CATALOGS_PER_RUN = 200
_TODAY = datetime.now(UTC).date().isoformat()
_PARTITIONS_AT_ONCE = 10_000
"""Keys added to the instance in one statement: SQLite limits their number."""

Tick = tuple[float, int, int]
"""The seconds of a tick, its number of catalogs and the bytes of its cursor."""


def ticks(base_url: str, *, due: bool = False, days: bool = False) -> Generator[Tick]:
    """Measure ticks of the sensor, in an instance that has a partition for each catalog.

    Args:
        base_url: The server.
        due: True to measure the tick that finds every catalog due and requests the first ones, with
            200 in a run; otherwise each has a snapshot of the time at which it was indexed.
        days: True for partitions of catalogs and days.
    """
    import dagster as dg

    from octogen_dagster import (
        OctogenResource,
        build_catalog_sensor,
        build_products_asset,
        catalog_days,
        catalog_partitions,
    )
    from octogen_dagster.snapshots.partitions import catalog_partition_key

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.BetaWarning)
        policy = dg.BackfillPolicy.multi_run(_CATALOGS_PER_RUN)
    products = build_products_asset(
        "products",
        partitions_def=catalog_days(_TODAY) if days else catalog_partitions,
        backfill_policy=policy,
    )
    sensor = build_catalog_sensor(products)
    octogen = OctogenResource(api_key=API_KEY, base_url=base_url)
    versions = {
        catalog_partition_key(state.catalog): state.version
        for state in octogen.service().fetch_catalogs().catalogs
    }
    with tempfile.TemporaryDirectory() as home, dg.DagsterInstance.local_temp(home) as instance:
        keys = list(versions)
        for first in range(0, len(keys), _PARTITIONS_AT_ONCE):
            instance.add_dynamic_partitions(
                str(catalog_partitions.name), keys[first : first + _PARTITIONS_AT_ONCE]
            )
        if not due:
            suffix = f"|{_TODAY}" if days else ""
            stored = {f"{key}{suffix}": version for key, version in versions.items()}
            materialize(instance, home, products.key, stored)
        cursor = None
        while True:
            context = dg.build_sensor_context(
                instance=instance, resources={"octogen": octogen}, cursor=cursor
            )
            began = time.perf_counter()
            result = sensor(context)
            seconds = time.perf_counter() - began
            if not isinstance(result, dg.SensorResult):
                raise RuntimeError(f"The tick was skipped: {result}")
            requested = len(result.run_requests or ())
            if requested != (50 if due else 0) or result.dynamic_partitions_requests:
                raise RuntimeError(f"The tick requested {requested} runs")
            cursor = result.cursor
            yield seconds, len(keys), len(cursor or "")


if __name__ == "__main__":
    what, server = sys.argv[1:]
    endless = ticks(server, due=what == "due", days=what == "days")
    with contextlib.closing(endless):
        next(endless)  # pays for late imports and for what is set up once
        measured = list(itertools.islice(endless, _TICKS[what]))
    print(
        json.dumps(
            {
                "seconds": statistics.mean(seconds for seconds, _, _ in measured),
                "catalogs": min(catalogs for _, catalogs, _ in measured),
                "cursor_bytes": max(cursor_bytes for _, _, cursor_bytes in measured),
            }
        )
    )
