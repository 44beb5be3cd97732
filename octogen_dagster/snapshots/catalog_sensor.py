"""The sensor that requests snapshots of new and re-indexed catalogs."""

import dataclasses
from collections.abc import Callable
from datetime import datetime
from typing import Any

import dagster as dg
import msgspec

from octogen_dagster.api.catalog_states import CatalogList
from octogen_dagster.dagster_parts import RESOURCE
from octogen_dagster.errors import OctogenError
from octogen_dagster.frames.reading import utc_now
from octogen_dagster.run_ledger import record_failed_tick
from octogen_dagster.sensor_limits import unfinished_partitions
from octogen_dagster.snapshots.catalog_tick import (
    CatalogCursor,
    CatalogTick,
    TickInputs,
    plan_tick,
)
from octogen_dagster.snapshots.partitions import SnapshotPartitions
from octogen_dagster.snapshots.resource import OctogenResource
from octogen_dagster.snapshots.withheld import withheld_observation

# Dagster ends a tick after 60 s; the sensor needs the rest to store its result.
LISTING_TIMEOUT = 30.0
_MAX_LISTING_SECONDS = 35.0
"""The time for the requests of a tick with all waits, also of a source that takes longer."""


def build_catalog_sensor(
    products: dg.AssetsDefinition,
    *,
    name: str = "octogen_catalog_sensor",
    minimum_interval_seconds: int = 300,
    resource_key: str = RESOURCE,
    **sensor_arguments: Any,
) -> dg.SensorDefinition:
    """A sensor that snapshots each catalog when it appears and whenever it was indexed again.

    Each tick lists the catalogs of the resource's source, adds a partition for each new one, and
    requests a run for each whose time moved, at most 50; the rest follow on the next ticks. The
    time is `lastIndexedAt`, or `computedAt` with `ShopCatalogs`. `NamedCatalogs` have none and are
    requested once: use a schedule for them. A time that becomes unknown requests nothing, and a new
    catalog waits until it has products. A catalog whose run brought no snapshot, because it failed,
    is requested again after 10 minutes, then 20, up to 6 hours. One that is no longer listed is
    reported once, as an observation of its partition; its data stays. A listing that fails in a
    way that passes skips the tick with the reason. The tick fails if the key is missing or refused,
    credit is spent or a setting is invalid, and if the service does not answer for the third tick
    in a row. If only some shops fail, the others are watched.

    Args:
        products: An asset of `build_products_asset`. Its partitions are dynamic ones of catalogs,
            or those and times; a run is requested for the present time.
        name: The sensor's name.
        minimum_interval_seconds: Seconds between two ticks.
        resource_key: The key of the `OctogenResource`; give another one to read with two of them.
        sensor_arguments: Any other argument of `@dagster.sensor`.

    Raises:
        ValueError: The asset has no named dynamic partitions.
    """
    return CatalogSensor(products, name, resource_key=resource_key).definition(
        minimum_interval_seconds=minimum_interval_seconds, **sensor_arguments
    )


class CatalogSensor:
    """A catalog sensor before Dagster wraps it.

    Args:
        products: The asset whose snapshots are requested.
        name: The sensor's name.
        resource_key: As for `build_catalog_sensor`.
        clock: Returns the present time, with a time zone.

    Raises:
        ValueError: The asset has no named dynamic partitions.
    """

    def __init__(
        self,
        products: dg.AssetsDefinition,
        name: str = "octogen_catalog_sensor",
        *,
        resource_key: str = RESOURCE,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        self._products = products
        self._name = name
        self._resource_key = resource_key
        self._clock = clock
        self._partitions = SnapshotPartitions(products.partitions_def)
        catalogs = self._partitions.catalogs
        if not isinstance(catalogs, dg.DynamicPartitionsDefinition) or not catalogs.name:
            raise ValueError(
                f"Asset {products.key.to_user_string()!r} must have a "
                "DynamicPartitionsDefinition with a name: catalogs are added to it."
            )
        self._catalogs = catalogs
        self._catalogs_name = catalogs.name

    def definition(self, **sensor_arguments: Any) -> dg.SensorDefinition:
        """The sensor's definition.

        Args:
            sensor_arguments: Arguments of `@dagster.sensor` except `name` and `target`.
        """

        description = (
            f"Requests {self._products.key.to_user_string()} for each catalog that is new or was "
            "indexed again, at most 50 in a tick, and reports catalogs that are no longer listed."
        )
        arguments = {"description": description, **sensor_arguments}

        @dg.sensor(
            name=self._name,
            target=self._products,
            required_resource_keys={self._resource_key},
            **arguments,
        )
        def catalog_sensor(
            context: dg.SensorEvaluationContext,
            **_: Any,  # the resources, if the sensor is called directly, as tests do
        ) -> dg.SensorResult | dg.SkipReason:
            return self._evaluate(context, getattr(context.resources, self._resource_key))

        return catalog_sensor

    def _evaluate(
        self, context: dg.SensorEvaluationContext, octogen: OctogenResource
    ) -> dg.SensorResult | dg.SkipReason:
        cursor, unreadable = CatalogCursor.load(context.cursor)
        if unreadable:
            context.log.warning(
                "The cursor is of another version or damaged: every catalog is checked anew. "
                "Runs that were requested before are not requested twice."
            )
        try:
            listed = _fetch_catalogs(octogen)
        except (OctogenError, ValueError) as error:
            record_failed_tick(cursor, "The catalogs could not be listed", error)
            context.update_cursor(cursor.dump())
            return dg.SkipReason(
                f"The catalogs could not be listed; the next tick tries again. {error}"
            )
        cursor.failed_ticks = msgspec.UNSET
        now = self._clock()
        tick = plan_tick(cursor, listed, self._inputs(context.instance, now))
        _log(listed, tick, context)
        return self._result(tick, now, len(listed.catalogs))

    def _inputs(self, instance: dg.DagsterInstance, now: datetime) -> TickInputs:
        return TickInputs(
            known=lambda: instance.get_dynamic_partitions(self._catalogs_name),
            latest_materializations=lambda keys: instance.get_latest_storage_id_by_partition(
                self._products.key, dg.DagsterEventType.ASSET_MATERIALIZATION, set(keys)
            ),
            unfinished=lambda: unfinished_partitions(instance, self._name),
            partition_of=lambda key: str(self._partitions.key(key, now)),
            now=int(now.timestamp()),
        )

    def _result(self, tick: CatalogTick, now: datetime, catalogs: int) -> dg.SensorResult:
        return dg.SensorResult(
            run_requests=[
                dg.RunRequest(
                    run_key=run_key,
                    partition_key=partition,
                    asset_selection=[self._products.key],  # or the run shows no target
                )
                for partition, run_key in tick.runs
            ],
            skip_reason=None if tick.runs else f"None of {catalogs} catalogs was indexed anew.",
            dynamic_partitions_requests=[self._catalogs.build_add_request(tick.new)]
            if tick.new
            else [],
            asset_events=[
                withheld_observation(self._products.key, self._partitions.key(key, now))
                for key in tick.gone
            ],
            cursor=tick.cursor.dump(),
        )


def _log(listed: CatalogList, tick: CatalogTick, context: dg.SensorEvaluationContext) -> None:
    for line in [*listed.warnings, *tick.skipped]:
        context.log.warning(line)
    for key in tick.gone:
        context.log.warning(f"Catalog {key} is no longer listed. Its snapshots are kept.")
    if tick.waiting:
        context.log.info(f"{tick.waiting} more snapshots are due; the next ticks request them.")


def _fetch_catalogs(octogen: OctogenResource) -> CatalogList:
    service = octogen.service()
    deadline = min(service.retry.deadline, LISTING_TIMEOUT)
    retry = dataclasses.replace(service.retry, deadline=deadline)
    return dataclasses.replace(service, retry=retry).within(_MAX_LISTING_SECONDS).fetch_catalogs()
