"""build_costs_asset: add up costs by day, asset and catalog."""

from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg
import polars as pl

from octogen_dagster.assets.definition import asset_arguments_of
from octogen_dagster.costs.runs import read_costs
from octogen_dagster.costs.table import COSTS_KIND
from octogen_dagster.snapshots.asset_decorator import SnapshotRun, snapshot_asset


def build_costs_asset(
    name: str | dg.AssetSpec = "octogen_costs", *, days: int = 30, **asset_arguments: Any
) -> dg.AssetsDefinition:
    """Build an asset that adds up this Dagster instance's costs by day, asset and catalog.

    Each row contains the costs of one asset and catalog on one day (UTC): the number of requests
    (`requests`) and the dollars (`cost_usd`) charged by Octogen, and the bytes billed by Google
    (`billed_bytes`). The costs come from run metadata and tags; the asset sends no requests. For
    failed reads, the dollars are included but the number of requests is not. If a failed run had
    several partitions, the row has no catalog.

    The metadata includes the totals `octogen/total_usd`, `octogen/total_possibly_charged_usd` and
    `octogen/total_billed_bytes`.

    Args:
        name: The asset's name or `dagster.AssetSpec`.
        days: The number of days in the table, including today.
        asset_arguments: Any other argument for `@dagster.asset`. To materialize it daily, pass
            `automation_condition=dagster.AutomationCondition.on_cron("0 6 * * *")`.

    Raises:
        ValueError: `days` is not a positive whole number.
    """
    if not isinstance(days, int) or days < 1:
        raise ValueError(f"days must be a positive whole number; got {days!r}.")

    @snapshot_asset(
        {
            "description": (
                f"Octogen and Google costs in the last {days} days. Each row contains the costs of "
                "one asset and catalog on one day."
            )
        },
        asset_arguments_of(name, asset_arguments),
        kind=COSTS_KIND,
    )
    def costs(run: SnapshotRun, _partition: str | None) -> pl.DataFrame:
        since = datetime.now(UTC) - timedelta(days=days - 1)
        return read_costs(run.context.instance, since)

    return costs
