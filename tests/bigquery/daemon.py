"""The listing sensor, tick by tick, with the daemon's part played in between."""

import threading
from typing import Any

import dagster as dg

from octogen_dagster.bigquery.linked_datasets import build_linked_datasets_asset
from octogen_dagster.bigquery.listing_sensor import ListingSensor
from octogen_dagster.bigquery.listing_sources import TICK_TIMEOUT, OctogenSource, Source
from octogen_dagster.bigquery.resources import AnalyticsHubResource, OctogenControlPlaneResource

PROJECT = "my-project"
PRINCIPAL = "serviceAccount:reader@my-project.iam.gserviceaccount.com"
MINUTE = 60


class Daemon:
    """Ticks the sensor and runs what it requests.

    Attributes:
        now: The time of the next tick, in seconds since 1970.
    """

    def __init__(
        self, instance: dg.DagsterInstance, source: Source, *, tick_timeout: float = TICK_TIMEOUT
    ) -> None:
        self.instance = instance
        self.control_plane = isinstance(source, OctogenSource)
        self.asset = build_linked_datasets_asset(
            control_plane=self.control_plane, replace_revoked=True, grant_waits=()
        )
        self.sensor = ListingSensor(
            source, self.asset, clock=lambda: self.now, tick_timeout=tick_timeout
        ).definition()
        self.resources: dict[str, Any] = {
            "analytics_hub": AnalyticsHubResource(project=PROJECT),
            "octogen_control_plane": OctogenControlPlaneResource(principal=PRINCIPAL),
        }
        self.cursor: str | None = None
        self.now = 1_000_000
        self.completed_at: float | None = None
        self.run_keys: set[str] = set()

    def evaluate(self) -> dg.SensorResult | dg.SkipReason:
        """A tick of which nothing is carried out."""
        context = dg.build_sensor_context(
            instance=self.instance, cursor=self.cursor, resources=self.resources
        )
        context._last_tick_completion_time = self.completed_at
        # A call of the sensor would pass resources as arguments.
        result: Any = self.sensor._raw_fn(context)
        assert isinstance(result, (dg.SensorResult, dg.SkipReason))
        if isinstance(result, dg.SkipReason):
            self.cursor = context.cursor
        return result

    def tick(self, *, minutes: int = 0, crash: str = "") -> dg.SensorResult:
        """A tick that reads the listings.

        Args:
            minutes: Minutes since the last tick.
            crash: "before the runs" or "before the cursor"; empty for no crash.
        """
        self.now += minutes * MINUTE
        result = self.evaluate()
        assert isinstance(result, dg.SensorResult), result
        for event in result.asset_events:
            self.instance.report_runless_asset_event(event)
        for partitions in result.dynamic_partitions_requests or ():
            assert isinstance(partitions, dg.AddDynamicPartitionsRequest)
            self.instance.add_dynamic_partitions(
                partitions.partitions_def_name, partitions.partition_keys
            )
        if crash != "before the runs":
            for request in result.run_requests or ():
                assert request.run_key
                assert request.partition_key
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

    def requested_keys(self, *, minutes: int = 0) -> list[str]:
        """The partition keys that a tick requests."""
        return [run.partition_key or "" for run in self.tick(minutes=minutes).run_requests or ()]

    def requested(self, *, minutes: int = 0) -> list[str]:
        """The ids of the listings that a tick requests."""
        return [listing_id(key) for key in self.requested_keys(minutes=minutes)]

    def subscribed(self) -> list[str]:
        """The ids of the listings whose partition was materialized."""
        return sorted(map(listing_id, self.instance.get_materialized_partitions(self.asset.key)))


def end_of_reads() -> None:
    """Wait until the threads of ticks have ended, which they do by themselves."""
    for thread in threading.enumerate():
        if thread.name == "octogen-listings":
            thread.join(30)
            assert not thread.is_alive()


def listing_id(key: str | None) -> str:
    return (key or "").rpartition(":")[2]


def reported(result: dg.SensorResult) -> dict[str, object]:
    """The state of each listing that a tick reports, by the listing's id."""
    return {
        listing_id(event.partition): event.metadata["octogen/state"].value
        for event in result.asset_events
    }
