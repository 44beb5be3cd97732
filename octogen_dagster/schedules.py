"""Schedules: named searches, or every catalog, on a cron."""

from typing import Any

import dagster as dg


def build_snapshot_schedule(
    products: dg.AssetsDefinition,
    cron_schedule: str,
    *,
    execution_timezone: str = "UTC",
    name: str | None = None,
    **schedule_arguments: Any,
) -> dg.ScheduleDefinition:
    """A schedule that snapshots a search, or each catalog partition that there is.

    Args:
        products: An asset of `build_products_asset`, without partitions or with dynamic ones.
        cron_schedule: When: five cron fields, or a name such as `@daily`.
        execution_timezone: The IANA time zone the cron is meant in.
        name: The schedule's name; by default `<asset>_schedule`.
        schedule_arguments: Any other argument of `dagster.ScheduleDefinition`.

    Raises:
        ValueError: The asset has partitions of another kind; those have schedules of their own
            (`dagster.build_schedule_from_partitioned_job`).
    """
    arguments: dict[str, Any] = {
        "name": name or f"{products.key.to_python_identifier()}_schedule",
        "cron_schedule": cron_schedule,
        "execution_timezone": execution_timezone,
        "target": products,
        **schedule_arguments,
    }
    partitions_def = products.partitions_def
    if partitions_def is None:
        return dg.ScheduleDefinition(**arguments)
    if not isinstance(partitions_def, dg.DynamicPartitionsDefinition):
        raise ValueError(
            f"Asset {products.key.to_user_string()!r} has no dynamic partitions: use "
            "dagster.build_schedule_from_partitioned_job for partitions of time."
        )

    @dg.schedule(**arguments)
    def every_catalog(
        context: dg.ScheduleEvaluationContext,
    ) -> list[dg.RunRequest] | dg.SkipReason:
        keys = partitions_def.get_partition_keys(dynamic_partitions_store=context.instance)
        if not keys:
            return dg.SkipReason(
                "No catalog is known yet: turn the catalog sensor on, or materialize the catalogs."
            )
        tick = context.scheduled_execution_time.isoformat()
        return [dg.RunRequest(run_key=f"{tick} {key}", partition_key=key) for key in keys]

    return every_catalog
