"""Ticks of automation over partitions of which nothing is new, alone in their process.

`python -m benchmarks.automation follow|eager` prints the CPU seconds of a tick of a history that
follows 10,000 catalogs, by `follow_upstream()` or by Dagster's `eager()`.
"""

import json
import logging
import statistics
import sys
import tempfile
import time
from typing import Any

import dagster as dg

from benchmarks.materializations import materialize
from octogen_dagster import (
    OctogenResource,
    build_product_history_asset,
    build_products_asset,
    catalog_partitions,
    follow_upstream,
)

CATALOGS = 10_000
_TICKS = 3


def ticks(condition: Any) -> list[float]:
    """Measure ticks after the one that sees what there is."""
    products = build_products_asset("products", partitions_def=catalog_partitions)
    history = build_product_history_asset(products, automation_condition=condition)
    defs = dg.Definitions(assets=[products, history], resources={"octogen": OctogenResource()})
    keys = [f"catalog-{number}" for number in range(CATALOGS)]
    with tempfile.TemporaryDirectory() as home, dg.DagsterInstance.local_temp(home) as instance:
        instance.add_dynamic_partitions(str(catalog_partitions.name), keys)
        for key in (products.key, history.key):
            materialize(instance, home, key, dict.fromkeys(keys, "1"))
        cursor, seconds = None, []
        for _ in range(_TICKS + 1):
            began = time.process_time()
            result = dg.evaluate_automation_conditions(defs, instance, cursor=cursor)
            seconds.append(time.process_time() - began)
            cursor = result.cursor
        if result.total_requested:
            raise RuntimeError(f"The tick requested {result.total_requested} partitions")
    return seconds[1:]


if __name__ == "__main__":
    logging.disable(logging.INFO)
    follows = sys.argv[1] == "follow"
    condition = follow_upstream() if follows else dg.AutomationCondition.eager()
    print(json.dumps(statistics.mean(ticks(condition))))
