"""The builder of the asset of costs."""

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
    """Build an asset: what the runs of this Dagster instance cost, by day, asset and catalog.

    A row is an asset and a catalog on a day (UTC), with the charged `requests` and the dollars
    (`cost_usd`) at Octogen, and the bytes that Google bills (`billed_bytes`). They are summed up
    from what runs reported. What a read cost that failed is in it, without its requests; of a run
    of several partitions it has no catalog. No request is sent.

    `octogen/total_usd`, `octogen/total_possibly_charged_usd` and `octogen/total_billed_bytes` in
    the metadata are the sums.

    Args:
        name: The asset's name or `dagster.AssetSpec`.
        days: The last days in the table, today included.
        asset_arguments: Any other argument of `@dagster.asset`. With
            `automation_condition=dagster.AutomationCondition.on_cron("0 6 * * *")` it is made each
            day.

    Raises:
        ValueError: days is not a positive whole number.
    """
    if not isinstance(days, int) or days < 1:
        raise ValueError(f"days must be a positive whole number, not {days!r}.")

    @snapshot_asset(
        {
            "description": (
                f"What the runs of the last {days} days cost at Octogen and at Google. A row is "
                "an asset and a catalog on a day."
            )
        },
        asset_arguments_of(name, asset_arguments),
        kind=COSTS_KIND,
    )
    def costs(run: SnapshotRun, _partition: str | None) -> pl.DataFrame:
        since = datetime.now(UTC) - timedelta(days=days - 1)
        return read_costs(run.context.instance, since)

    return costs
