"""Simulates the backdated days, before the daemon starts.

Octogen serves current data only, so a history begins with its first snapshot. To show a month of
data without waiting a month, the demo backdates `fetched_at` for each day and reports
materializations to the Dagster instance that the UI shows. The price list is based on the prices on
the first day.
"""

import importlib
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
from rich.console import Console

from octogen_dagster import (
    ParquetSnapshotIOManager,
    ProductSearch,
    build_product_history_asset,
    catalog_partitions,
    scan_products,
)
from octogen_dagster.demo.processes import DEFINITIONS
from octogen_dagster.sandbox.server import Sandbox
from octogen_dagster.snapshots.partitions import catalog_partition_key

QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
_LOWERED = {3: ("price", 0.55), 5: ("map_price", 0.95)}
"""The days on which a competitor undercuts the price list, with a column and a factor.

The competitor's new price is the value of this price-list column times the factor.
"""


def begin_day(sandbox: Sandbox, snapshots: Path, day: int) -> None:
    """Begin the next day in the sandbox.

    On some days, the competitor whose price is furthest below the price list lowers it further.
    """
    if day in _LOWERED:
        column, part = _LOWERED[day]
        offers = pl.scan_parquet(snapshots / "octogen_products/*.parquet").filter("in_stock")
        articles = pl.scan_parquet(snapshots / "articles.parquet")
        index = pl.col("current_price") / pl.col("price")
        lowest = articles.join(offers, on="product_url").bottom_k(1, by=index)
        for url, price in lowest.select("product_url", column).collect().rows():
            sandbox.set_price(url, round(price * part, 2))
    sandbox.next_day()


def play_past(
    console: Console,
    sandbox: Sandbox,
    instance: dg.DagsterInstance,
    snapshots: Path,
    *,
    catalogs: Sequence[str],
    days: int,
) -> None:
    """Simulate a number of past days, each with a backdated snapshot of the catalogs."""
    keys = {catalog_partition_key(catalog): catalog for catalog in catalogs}
    fetched_at = datetime.now(UTC) - timedelta(days=days)

    @dg.asset(key="octogen_products", partitions_def=catalog_partitions)
    def products(context: dg.AssetExecutionContext) -> dict[str, pl.DataFrame]:
        searches = {key: ProductSearch(catalogs=[keys[key]]) for key in context.partition_keys}
        read_at = pl.lit(fetched_at)
        return {
            key: scan_products(search).collect().with_columns(fetched_at=read_at)
            for key, search in searches.items()
        }

    history = build_product_history_asset(products, backfill_policy=dg.BackfillPolicy.single_run())
    defs = dg.Definitions(
        assets=[products, history],
        executor=dg.in_process_executor,
        resources={"io_manager": ParquetSnapshotIOManager(base_dir=str(snapshots))},
    )
    job: Any = defs.resolve_implicit_global_asset_job_def()
    ends = {"start": min(keys), "end": max(keys)}
    of_all = {f"dagster/asset_partition_range_{end}": key for end, key in ends.items()}

    def report(result: dg.ExecuteInProcessResult) -> None:
        for event in result.get_asset_materialization_events():
            instance.report_runless_asset_event(event.materialization)

    # Runs in the instance itself would be shown as manually launched.
    with dg.DagsterInstance.ephemeral() as elsewhere, console.status("") as status:
        for each in (instance, elsewhere):
            each.add_dynamic_partitions("octogen_catalogs", sorted(keys))
        for day in range(1, days + 1):
            if day > 1:
                begin_day(sandbox, snapshots, day)
            status.update(f"Day {day}, as if it was {fetched_at:%Y-%m-%d}")
            report(job.execute_in_process(instance=elsewhere, tags=of_all, run_config=QUIET))
            definitions: Any = importlib.import_module(DEFINITIONS)  # reads the environment
            of_list = [definitions.articles, definitions.price_list, definitions.price_list_alerts]
            made = {1: of_list[:2], **dict.fromkeys(_LOWERED, of_list[2:])}
            if day in made:
                report(
                    dg.materialize(
                        [products, history, *of_list],
                        instance=elsewhere,
                        resources=defs.resources,
                        run_config=QUIET,
                        selection=made[day],
                    )
                )
            fetched_at += timedelta(days=1)
