"""Days before those that the daemon plays: read at once, and dated back.

Octogen knows only the present, so a history begins with its first snapshot. The demo has no month
to wait: it gives the products of each day the `fetched_at` of a day ago.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
from rich.console import Console

from octogen_dagster import (
    ParquetSnapshotIOManager,
    ProductSearch,
    build_product_history_asset,
    catalog_partition_key,
    catalog_partitions,
    scan_products,
)
from octogen_dagster.sandbox.server import Sandbox

QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


def play_past(
    console: Console, sandbox: Sandbox, snapshots: Path, catalogs: Sequence[str], days: int
) -> None:
    """Snapshot the catalogs on a number of days, the last of which was yesterday."""
    keys = {catalog_partition_key(catalog): catalog for catalog in catalogs}
    fetched_at = datetime.now(timezone.utc) - timedelta(days=days)

    @dg.asset(key="octogen_products", partitions_def=catalog_partitions)
    def products(context: dg.AssetExecutionContext) -> pl.DataFrame:
        found = scan_products(ProductSearch(catalogs=[keys[context.partition_key]])).collect()
        return found.with_columns(fetched_at=pl.lit(fetched_at))

    defs = dg.Definitions(
        assets=[products, build_product_history_asset(products)],
        executor=dg.in_process_executor,
        resources={"io_manager": ParquetSnapshotIOManager(base_dir=str(snapshots))},
    )
    job: Any = defs.resolve_implicit_global_asset_job_def()
    with dg.DagsterInstance.ephemeral() as instance, console.status("") as status:
        instance.add_dynamic_partitions("octogen_catalogs", list(keys))
        for day in range(1, days + 1):
            if day > 1:
                sandbox.next_day()
            status.update(f"Day {day}, as if it was {fetched_at:%Y-%m-%d}")
            for key in keys:
                job.execute_in_process(instance=instance, partition_key=key, run_config=QUIET)
            fetched_at += timedelta(days=1)
