"""The schedule that snapshots a search or every catalog at fixed times."""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

import dagster as dg

from octogen_dagster.assets.definition import require_asset
from octogen_dagster.assets.ticks import most_in_a_run, run_request
from octogen_dagster.frames.source import utc_now
from octogen_dagster.snapshots.partitions import PartitionLayout


def build_snapshot_schedule(
    products: dg.AssetsDefinition,
    cron_schedule: str,
    *,
    execution_timezone: str = "UTC",
    name: str | None = None,
    _clock: Callable[[], datetime] = utc_now,
    **schedule_arguments: Any,
) -> dg.ScheduleDefinition:
    """A schedule that snapshots a search, or each catalog that has a partition.

    If the asset has partitions of time, each tick requests those of the present: the service
    knows nothing else. If the asset has a `backfill_policy`, a run has as many catalogs as it
    allows, in Dagster's order of the partitions. The run of a catalog that is mistyped, or that the
    service withholds, fails and says so, until its partition is deleted.

    Args:
        products: An asset of `build_products_asset`.
        cron_schedule: Five cron fields, or a name such as `@daily`.
        execution_timezone: The IANA time zone of the cron schedule.
        name: The schedule's name; by default `<asset>_schedule`.
        schedule_arguments: Any other argument of `dagster.ScheduleDefinition`.
    """
    require_asset(products, "products")
    partitions = PartitionLayout(products.partitions_def)
    which = "" if partitions.catalogs is None else " for each catalog that has a partition"
    when = "" if partitions.times is None else ", in the partition of the present time"
    arguments: dict[str, Any] = {
        "name": name or f"{products.key.to_python_identifier()}_schedule",
        "cron_schedule": cron_schedule,
        "execution_timezone": execution_timezone,
        "target": products,
        "description": f"Requests {products.key.to_user_string()}{which}{when}.",
        **schedule_arguments,
    }
    if products.partitions_def is None:
        return dg.ScheduleDefinition(**arguments)

    @dg.schedule(**arguments)
    def every_catalog(
        context: dg.ScheduleEvaluationContext,
    ) -> list[dg.RunRequest] | dg.SkipReason:
        catalogs: Sequence[str | None] = [None]
        if partitions.catalogs is not None:
            catalogs = partitions.catalogs.get_partition_keys(
                dynamic_partitions_store=context.instance
            )
        if not catalogs:
            return dg.SkipReason(
                "No catalog is known yet: turn the catalog sensor on, or materialize the catalogs."
            )
        tick = context.scheduled_execution_time
        keys = [partitions.key(catalog, tick) for catalog in catalogs]
        if not partitions.is_present(keys[0], _clock()):
            return dg.SkipReason(
                f"The tick of {tick:%Y-%m-%d %H:%M %Z} is late: the time of its partitions is "
                "over, and the service knows only the present. The next tick requests more."
            )
        most = most_in_a_run(products)
        return [
            run_request(
                keys[first],
                keys[min(first + most, len(keys)) - 1],
                tags={},
                run_key=f"{tick.isoformat()} {keys[first]}",
                asset_selection=[products.key],  # or the sensor does not see what is being read
            )
            for first in range(0, len(keys), most)
        ]

    return every_catalog
