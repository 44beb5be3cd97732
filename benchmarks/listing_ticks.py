"""Ticks of the listing sensor, alone in their process.

`python -m benchmarks.listing_ticks ENDPOINT EXCHANGE` takes the endpoint and the exchange of
`benchmarks.hub`. It prints the number of ticks until every listing was requested, and for some of
them the seconds of the sensor's function, from its call to its result. `listing` is the floor of
the first tick: Google's client downloads all pages of the listings and throws them away. `both` is
the floor of a tick that finds some subscribed: it also downloads the pages of the subscriptions.
"""

import json
import statistics
import sys
import tempfile
import time
from typing import Any

from benchmarks.hub import PROJECT
from benchmarks.materializations import materialize

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

    def tick(self) -> list[str]:
        """Make a tick; return the partition key of each run that it requests."""
        import dagster as dg

        context = dg.build_sensor_context(
            instance=self._instance, resources={"analytics_hub": self._hub}
        )
        return [request.partition_key for request in self._sensor(context).run_requests]

    def carry_out(self, keys: list[str]) -> None:
        """Add partitions and materialize them."""
        self._instance.add_dynamic_partitions("octogen_listings", keys)
        materialize(self._instance, self._home, self._key, dict.fromkeys(keys, ""))


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


def _measure(endpoint: str, exchange: str) -> dict[str, float]:
    from octogen_dagster import AnalyticsHubResource, listing_partition_key
    from octogen_dagster.assets.ticks import Wanted, plan

    with AnalyticsHubResource(project=PROJECT, endpoint=endpoint).hub() as hub:
        found = hub.list_listings(exchange).listings
    wanted = [Wanted(listing_partition_key(str(listing.name))) for listing in found]
    done: dict[str, str] = {}
    requests: list[list[str]] = []
    while due := plan(wanted, done, lambda _: {}, (), 0.0, known=done).requests:
        requests.append([each.key for run in due for each in run])
        done.update(dict.fromkeys(requests[-1], ""))
    last = len(requests) - 1
    measured: dict[str, float] = {"listings": bare(endpoint, exchange), "ticks": len(requests)}
    floors: dict[bool, list[float]] = {False: [], True: []}
    with tempfile.TemporaryDirectory() as home:
        sensor = Sensor(home, endpoint, exchange)
        sensor.tick()  # pays for late imports and for what is set up once
        carried_out = 0
        for stage, tick in {
            "first": 0,
            "middle": last // 2,
            "last": last,
            "idle": last + 1,
        }.items():
            if keys := [key for some in requests[carried_out:tick] for key in some]:
                sensor.carry_out(keys)
            carried_out = tick
            expected = requests[tick] if tick <= last else []
            seconds = []
            for _ in range(_REPEATS):
                began = time.perf_counter()
                bare(endpoint, exchange, subscriptions=tick > 0)
                floors[tick > 0].append(time.perf_counter() - began)
                began = time.perf_counter()
                requested = sensor.tick()
                seconds.append(time.perf_counter() - began)
                if requested != expected:
                    raise RuntimeError(f"{stage}: {len(requested)} requests, not {len(expected)}")
            measured[stage] = statistics.mean(seconds)
    return {
        **measured,
        "listing": statistics.mean(floors[False]),
        "both": statistics.mean(floors[True]),
    }


if __name__ == "__main__":
    print(json.dumps(_measure(*sys.argv[1:])))
