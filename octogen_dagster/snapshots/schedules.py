"""Schedules: named searches, or every catalog, on a cron."""

from collections.abc import Sequence
from typing import Any

import dagster as dg

from octogen_dagster.frames.plan import is_now
from octogen_dagster.snapshots.partitions import SnapshotPartitions


def build_snapshot_schedule(
    products: dg.AssetsDefinition,
    cron_schedule: str,
    *,
    execution_timezone: str = "UTC",
    name: str | None = None,
    **schedule_arguments: Any,
) -> dg.ScheduleDefinition:
    """A schedule that snapshots a search, or each catalog that has a partition.

    Partitions of time are those of the present: the service knows nothing else.

    Args:
        products: An asset of `build_products_asset`.
        cron_schedule: When: five cron fields, or a name such as `@daily`.
        execution_timezone: The IANA time zone the cron is meant in.
        name: The schedule's name; by default `<asset>_schedule`.
        schedule_arguments: Any other argument of `dagster.ScheduleDefinition`.
    """
    arguments: dict[str, Any] = {
        "name": name or f"{products.key.to_python_identifier()}_schedule",
        "cron_schedule": cron_schedule,
        "execution_timezone": execution_timezone,
        "target": products,
        **schedule_arguments,
    }
    if products.partitions_def is None:
        return dg.ScheduleDefinition(**arguments)
    partitions = SnapshotPartitions(products.partitions_def)

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
        window = partitions.window(partitions.key(catalogs[0], tick))
        if window is not None and not is_now(window):
            return dg.SkipReason(
                f"The tick of {tick:%Y-%m-%d %H:%M %Z} is late: the time that its partitions are "
                "of is over, and the service knows only the present. The next tick requests more."
            )
        return [
            dg.RunRequest(run_key=f"{tick.isoformat()} {key}", partition_key=key)
            for key in (partitions.key(catalog, tick) for catalog in catalogs)
        ]

    return every_catalog
