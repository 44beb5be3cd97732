"""The schedule that snapshots a search or every catalog at fixed times."""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

import dagster as dg

from octogen_dagster.frames.reading import utc_now
from octogen_dagster.snapshots.partitions import SnapshotPartitions
from octogen_dagster.snapshots.withheld import withheld_catalogs

_MAX_CATALOGS_IN_LOG = 10


def build_snapshot_schedule(
    products: dg.AssetsDefinition,
    cron_schedule: str,
    *,
    execution_timezone: str = "UTC",
    name: str | None = None,
    **schedule_arguments: Any,
) -> dg.ScheduleDefinition:
    """A schedule that snapshots a search, or each catalog that has a partition.

    If the asset has partitions of time, each tick requests those of the present: the service
    knows nothing else. A catalog that the service withheld is left out until it has a snapshot
    again: one that never had any, such as a mistyped partition, after its first run; one that had,
    after the sensor reported that it is no longer listed.

    Args:
        products: An asset of `build_products_asset`.
        cron_schedule: Five cron fields, or a name such as `@daily`.
        execution_timezone: The IANA time zone of the cron schedule.
        name: The schedule's name; by default `<asset>_schedule`.
        schedule_arguments: Any other argument of `dagster.ScheduleDefinition`.
    """
    return SnapshotSchedule(products).definition(
        name=name or f"{products.key.to_python_identifier()}_schedule",
        cron_schedule=cron_schedule,
        execution_timezone=execution_timezone,
        **schedule_arguments,
    )


class SnapshotSchedule:
    """A snapshot schedule before Dagster wraps it.

    Args:
        products: The asset whose snapshots are requested.
        clock: Returns the present time, with a time zone.
    """

    def __init__(
        self, products: dg.AssetsDefinition, *, clock: Callable[[], datetime] = utc_now
    ) -> None:
        self._products = products
        self._clock = clock

    def definition(self, **schedule_arguments: Any) -> dg.ScheduleDefinition:
        """The schedule's definition.

        Args:
            schedule_arguments: Arguments of `dagster.ScheduleDefinition`; the target is the asset.
        """
        partitions = SnapshotPartitions(self._products.partitions_def)
        arguments: dict[str, Any] = {
            "target": self._products,
            "description": self._description(partitions),
            **schedule_arguments,
        }
        if self._products.partitions_def is None:
            return dg.ScheduleDefinition(**arguments)

        @dg.schedule(**arguments)
        def every_catalog(
            context: dg.ScheduleEvaluationContext,
        ) -> list[dg.RunRequest] | dg.SkipReason:
            return self._evaluate(context, partitions)

        return every_catalog

    def _description(self, partitions: SnapshotPartitions) -> str:
        which = "" if partitions.catalogs is None else " for each catalog that has a partition"
        when = "" if partitions.times is None else ", in the partition of the present time"
        return f"Requests {self._products.key.to_user_string()}{which}{when}."

    def _evaluate(
        self, context: dg.ScheduleEvaluationContext, partitions: SnapshotPartitions
    ) -> list[dg.RunRequest] | dg.SkipReason:
        catalogs: Sequence[str | None] = [None]
        if partitions.catalogs is not None:
            catalogs = self._catalogs(context, partitions, partitions.catalogs)
        if not catalogs:
            return dg.SkipReason(
                "No catalog is known yet: turn the catalog sensor on, or materialize the catalogs."
            )
        tick = context.scheduled_execution_time
        keys = [partitions.key(catalog, tick) for catalog in catalogs]
        if not partitions.is_present(keys[0], self._clock()):
            return dg.SkipReason(
                f"The tick of {tick:%Y-%m-%d %H:%M %Z} is late: the time of its partitions is "
                "over, and the service knows only the present. The next tick requests more."
            )
        return [
            dg.RunRequest(run_key=f"{tick.isoformat()} {key}", partition_key=key) for key in keys
        ]

    def _catalogs(
        self,
        context: dg.ScheduleEvaluationContext,
        partitions: SnapshotPartitions,
        catalogs: dg.PartitionsDefinition[str],
    ) -> list[str]:
        """The partition keys of the catalogs to request."""
        keys = catalogs.get_partition_keys(dynamic_partitions_store=context.instance)
        withheld = withheld_catalogs(context.instance, self._products.key, partitions)
        if left_out := sorted(withheld.intersection(keys)):
            context.log.warning(
                f"{len(left_out)} catalogs are left out, because they could not be read and have "
                f"no snapshot since: {', '.join(left_out[:_MAX_CATALOGS_IN_LOG])}. Delete the "
                "partitions of those that are mistyped, and materialize the others."
            )
        return [key for key in keys if key not in withheld]
