"""The listing sensor, tick by tick, with the daemon's part played in between."""

from typing import Any

import dagster as dg

from octogen_dagster.bigquery.linked_datasets import build_linked_datasets_asset
from octogen_dagster.bigquery.listing_sensor import build_listing_sensor
from octogen_dagster.bigquery.listing_sources import OctogenSource
from octogen_dagster.bigquery.resources import AnalyticsHubResource, OctogenControlPlaneResource

PROJECT = "my-project"
PRINCIPAL = "serviceAccount:reader@my-project.iam.gserviceaccount.com"
MINUTE = 60


class Daemon:
    """Ticks the sensor and runs what it requests."""

    def __init__(self, instance: dg.DagsterInstance, source: Any) -> None:
        self.instance = instance
        self.control_plane = isinstance(source, OctogenSource)
        self.asset = build_linked_datasets_asset(control_plane=self.control_plane, grant_waits=())
        self.sensor = build_listing_sensor(source, self.asset)
        self.resources: dict[str, Any] = {
            "analytics_hub": AnalyticsHubResource(project=PROJECT),
            "octogen_control_plane": OctogenControlPlaneResource(principal=PRINCIPAL),
        }
        self.cursor: str | None = None
        self.now = 1_000_000
        self.completed_at: float | None = None
        self.run_keys: set[str] = set()

    def tick(self, *, minutes: int = 0, crash: str = "") -> Any:
        """A tick some minutes later; a crash is before the runs or before the cursor."""
        self.now += minutes * MINUTE
        context = dg.build_sensor_context(
            instance=self.instance, cursor=self.cursor, resources=self.resources
        )
        context._last_tick_completion_time = self.completed_at
        result: Any = self.sensor._raw_fn(context)  # a call passes resources as arguments
        if isinstance(result, dg.SkipReason):
            return result
        for event in result.asset_events:
            self.instance.report_runless_asset_event(event)
        for request in result.dynamic_partitions_requests:
            self.instance.add_dynamic_partitions(
                request.partitions_def_name, request.partition_keys
            )
        if crash != "before the runs":
            for request in result.run_requests:
                if request.run_key not in self.run_keys:
                    self.run_keys.add(request.run_key)
                    self.run(request.partition_key)
        if not crash:
            self.cursor, self.completed_at = result.cursor, float(self.now)
        return result

    def run(self, key: str) -> dg.ExecuteInProcessResult:
        return dg.materialize(
            [self.asset],
            partition_key=key,
            instance=self.instance,
            raise_on_error=False,
            resources=self.resources,
        )

    def asked(self, **tick: Any) -> list[str]:
        """The listings that a tick asks for."""
        result = self.tick(**tick)
        return [request.partition_key.rpartition(":")[2] for request in result.run_requests]

    def subscribed(self) -> list[str]:
        keys = self.instance.get_materialized_partitions(self.asset.key)
        return sorted(key.rpartition(":")[2] for key in keys)


def reported(result: Any) -> dict[str, str]:
    return {
        event.partition.rpartition(":")[2]: event.metadata["octogen/state"].value
        for event in result.asset_events
    }
