"""build_snapshot_schedule: snapshot a search or every catalog at fixed times."""

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
    """Build a schedule that snapshots a search, or every catalog that has a partition.

    If the asset has time partitions, each tick requests the current one, because the service has
    current data only. If the asset has a `backfill_policy`, a run covers as many catalogs as the
    policy allows, in Dagster's partition order. Runs for a mistyped or withdrawn catalog fail with
    an explanation until you delete its partition.

    Args:
        products: An asset built by `build_products_asset`.
        cron_schedule: Five cron fields, or a name such as `@daily`.
        execution_timezone: The cron schedule's IANA time zone.
        name: The schedule's name. Defaults to `<asset>_schedule`.
        schedule_arguments: Any other argument for `dagster.ScheduleDefinition`.
    """
    require_asset(products, "products")
    partitions = PartitionLayout(products.partitions_def)
    which = "" if partitions.catalogs is None else " for each catalog that has a partition"
    when = "" if partitions.times is None else ", in the current time partition"
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
                "No catalog has a partition yet. Turn on the catalog sensor, or materialize the "
                "catalogs asset."
            )
        tick = context.scheduled_execution_time
        keys = [partitions.key(catalog, tick) for catalog in catalogs]
        if not partitions.is_present(keys[0], _clock()):
            return dg.SkipReason(
                f"The {tick:%Y-%m-%d %H:%M %Z} tick ran too late: its time partition has ended, "
                "and the service has current data only. The next tick requests new snapshots."
            )
        most = most_in_a_run(products)
        return [
            run_request(
                keys[first],
                keys[min(first + most, len(keys)) - 1],
                tags={},
                run_key=f"{tick.isoformat()} {keys[first]}",
                asset_selection=[products.key],  # lets the sensor see which catalogs are being read
            )
            for first in range(0, len(keys), most)
        ]

    return every_catalog
