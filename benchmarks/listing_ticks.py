"""Ticks of the listing sensor, alone in their process.

`python -m benchmarks.listing_ticks ENDPOINT EXCHANGE` takes the endpoint and the exchange of
`benchmarks.hub`. It prints the number of ticks until every listing was requested, and for some of
them the seconds of the sensor's function, from its call to its result. `listing` is the floor:
Google's client downloads all pages of the listings and throws them away. `both` is the floor of
the tick that checks: it also downloads the pages of the subscriptions.
"""

import json
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.hub import PROJECT

_REPEATS = 3


class Sensor:
    """The listing sensor of an exchange, in an instance on SQLite."""

    def __init__(self, home: str, endpoint: str, exchange: str) -> None:
        import dagster as dg

        from octogen_dagster import (
            AnalyticsHubResource,
            ExchangeSource,
            build_linked_datasets_asset,
            build_listing_sensor,
        )

        asset = build_linked_datasets_asset()
        self._key = asset.key
        self._sensor: Any = build_listing_sensor(ExchangeSource(exchange), asset)
        self._hub = AnalyticsHubResource(project=PROJECT, endpoint=endpoint)
        self._home = home
        self._instance = dg.DagsterInstance.local_temp(home)

    def tick(self, cursor: str | None) -> list[tuple[str, str]]:
        """Make a tick; return the partition key and the run key of each run that it requests."""
        import dagster as dg

        context = dg.build_sensor_context(
            instance=self._instance, cursor=cursor, resources={"analytics_hub": self._hub}
        )
        result = self._sensor._raw_fn(context)
        return [(request.partition_key, request.run_key) for request in result.run_requests]

    def carry_out(self, new: list[str], made: list[str]) -> None:
        """Add partitions and materialize some: one event is reported and copied for the others."""
        import dagster as dg

        self._instance.add_dynamic_partitions("octogen_listings", new)
        if not made:
            return
        first, *rest = made
        self._instance.report_runless_asset_event(
            dg.AssetMaterialization(self._key, partition=first)
        )
        with sqlite3.connect(Path(self._home, "history/runs/index.db")) as index:
            index.row_factory = sqlite3.Row
            event = index.execute("SELECT * FROM event_logs ORDER BY id DESC LIMIT 1").fetchone()
            columns = [name for name in tuple(event.keys()) if name not in ("id", "partition")]
            index.executemany(
                f"INSERT INTO event_logs (partition, {', '.join(columns)}) "
                f"VALUES (?{', ?' * len(columns)})",
                [(key, *(event[name] for name in columns)) for key in rest],
            )


def bare(endpoint: str, exchange: str, *, subscriptions: bool = False) -> int:
    """Download all pages with a client of its own; return the number of entries."""
    import grpc
    from google.cloud import bigquery_analyticshub_v1 as ah

    transport = ah.AnalyticsHubServiceClient.get_transport_class("grpc")
    with ah.AnalyticsHubServiceClient(
        transport=transport(
            channel=grpc.insecure_channel(endpoint, options=[("grpc.enable_http_proxy", 0)])
        )
    ) as client:
        listings = ah.ListListingsRequest(parent=exchange, page_size=1000)
        found = sum(len(page.listings) for page in client.list_listings(listings).pages)
        if subscriptions:
            parent = f"projects/{PROJECT}/locations/us"
            request = ah.ListSubscriptionsRequest(parent=parent, page_size=1000)
            for page in client.list_subscriptions(request).pages:
                found += len(page.subscriptions)
        return found


def _seconds(work: Callable[[], Any]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def _measure(endpoint: str, exchange: str) -> dict[str, float]:
    from octogen_dagster.bigquery.listing_tick import ListingCursor, TickInputs, plan_tick
    from octogen_dagster.bigquery.partitions import listing_partition_key
    from octogen_dagster.bigquery.resources import AnalyticsHubResource

    with AnalyticsHubResource(project=PROJECT, endpoint=endpoint).hub() as hub:
        found = hub.list_listings(exchange).listings
        keys = [listing_partition_key(str(listing.name)) for listing in found]
    last = len(keys) // 50 - 1
    stages = {0: "first", last // 2: "middle", last: "last"}
    measured: dict[str, float] = {"listings": bare(endpoint, exchange)}
    floors = []
    cursor, known, subscribed, ticks = ListingCursor(), set[str](), set[str](), 0
    new, made = list[str](), list[str]()  # since the last measured tick

    with tempfile.TemporaryDirectory() as home:
        sensor = Sensor(home, endpoint, exchange)
        sensor.tick(None)  # pays for late imports and for what is set up once

        def measure(stage: str, due: list[tuple[str, str]]) -> list[float]:
            sensor.carry_out(new, made)
            new.clear()
            made.clear()
            seconds, floors = [], []
            for _ in range(_REPEATS):
                floors.append(
                    _seconds(lambda: bare(endpoint, exchange, subscriptions=stage == "check"))
                )
                began = time.perf_counter()
                requested = sensor.tick(cursor.dump())
                seconds.append(time.perf_counter() - began)
                if requested != due:
                    raise RuntimeError(f"{stage}: {len(requested)} requests, not {len(due)}")
            measured[stage] = statistics.mean(seconds)
            return floors

        while True:
            statuses = dict.fromkeys(keys, "")
            inputs = TickInputs(statuses, known, subscribed, (), {}, int(time.time()))
            tick = plan_tick(cursor, inputs)
            cursor.checked_at = int(time.time())  # no check of the subscriptions is due
            if ticks in stages:
                floors += measure(stages[ticks], tick.runs)
            if not tick.runs:
                break
            ticks += 1
            cursor = tick.cursor
            new += tick.new
            made += [key for key, _ in tick.runs]
            known.update(tick.new)
            subscribed.update(made)
        floors += measure("idle", [])
        cursor.checked_at = 0
        measured["both"] = statistics.mean(measure("check", []))
    return {**measured, "listing": statistics.mean(floors), "ticks": ticks}


if __name__ == "__main__":
    print(json.dumps(_measure(*sys.argv[1:])))
