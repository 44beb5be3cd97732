"""The sensor that requests snapshots of new and re-indexed catalogs."""

import base64
import contextlib
import dataclasses
import zlib
from collections.abc import Callable
from datetime import datetime
from typing import Any

import dagster as dg
import msgspec

from octogen_dagster.api.catalog_sources import CatalogService
from octogen_dagster.api.catalog_states import CatalogList
from octogen_dagster.assets.definition import RESOURCE, require_asset
from octogen_dagster.assets.latest import (
    DATA_VERSION_TAG,
    catalog_version,
    latest_ids,
    latest_versions,
)
from octogen_dagster.assets.ticks import (
    Wanted,
    named_partitions,
    read_busy,
    request_runs,
    skip_or_fail,
)
from octogen_dagster.errors import OctogenError
from octogen_dagster.frames.source import utc_now
from octogen_dagster.products.resource import OctogenResource
from octogen_dagster.snapshots.metadata import SEARCH
from octogen_dagster.snapshots.partitions import PartitionLayout, keys_by_catalog

# Dagster ends a tick after 60 s; the sensor needs the rest to store its result.
LISTING_TIMEOUT = 30.0
_MAX_LISTING_SECONDS = 35.0
"""The time for the requests of a tick with all waits, also of a source that takes longer."""


def build_catalog_sensor(
    products: dg.AssetsDefinition,
    *,
    name: str | None = None,
    minimum_interval_seconds: int = 300,
    resource_key: str = RESOURCE,
    _clock: Callable[[], datetime] = utc_now,
    **sensor_arguments: Any,
) -> dg.SensorDefinition:
    """A sensor that snapshots each catalog when it appears and whenever it was indexed again.

    Each tick lists the catalogs of the resource's source, adds a partition for each new one, and
    requests a run for each whose time is not that of its last snapshot, at most 50 runs; the rest
    follow on the next ticks, those without a snapshot first. If the asset has a `backfill_policy`,
    a run has several catalogs that are due and follow each other in Dagster's order of the
    partitions, and no other ones between them. The time is `lastIndexedAt`, or `computedAt` with
    `ShopCatalogs`. `NamedCatalogs` have none and are requested until there is a snapshot: use a
    schedule for them. A time that becomes unknown requests nothing, and a new catalog waits until
    it has products. A catalog whose run brought no snapshot, because it failed, is requested again
    after 10 minutes, then 20, up to 6 hours. One that is no longer listed is not requested; the
    check `fresh` names it, and its data stays. A listing that fails in a way that passes skips the
    tick with the reason. The tick fails if the key is missing or refused, credit is spent or a
    setting is invalid, and if the service does not answer for the third tick in a row. If only some
    shops fail, the others are watched.

    The sensor has no memory of its own. The time of a snapshot is the data version of its
    materialization, and what was requested are the runs with the tag `octogen/request`.

    Args:
        products: An asset of `build_products_asset`. Its partitions are dynamic ones of catalogs,
            or those and times; a run is requested for the present time.
        name: The sensor's name; by default `<products>_catalog_sensor`.
        minimum_interval_seconds: Seconds between two ticks.
        resource_key: The key of the `OctogenResource`; give another one to read with two of them.
        sensor_arguments: Any other argument of `@dagster.sensor`.

    Raises:
        ValueError: The asset has no named dynamic partitions.
    """
    require_asset(products, "products")
    name = name or f"{products.key.to_python_identifier()}_catalog_sensor"
    partitions = PartitionLayout(products.partitions_def)
    catalogs = named_partitions(products, partitions.catalogs, "catalogs")
    if SEARCH not in products.metadata_by_key[products.key]:
        raise ValueError(
            f"Asset {products.key.to_user_string()!r} was not built by build_products_asset. "
            "The sensor would request it again and again, because its snapshots do not have the "
            "version of the catalog as their data version. Use a schedule for it."
        )
    arguments = {
        "description": f"Requests {products.key.to_user_string()} for each catalog that is new or "
        "was indexed again, at most 50 runs in a tick.",
        **sensor_arguments,
    }

    @dg.sensor(
        name=name,
        target=products,
        minimum_interval_seconds=minimum_interval_seconds,
        required_resource_keys={resource_key},
        **arguments,
    )
    def catalog_sensor(
        context: dg.SensorEvaluationContext,
        **_: Any,  # the resources, if the sensor is called directly, as tests do
    ) -> dg.SensorResult | dg.SkipReason:
        now = _clock()
        busy = read_busy(context.instance, products.key, now.timestamp(), partitions.catalog_key)
        try:
            listed = _list_catalogs(getattr(context.resources, resource_key))
        except (OctogenError, ValueError) as error:
            return skip_or_fail(context, name, "The catalogs could not be listed", error)
        cursor = None
        if partitions.times is None:
            done = latest_versions(context.instance, products.key)
        else:
            cached = _CachedVersions.load(context.cursor)
            cached.update(context.instance, products.key, partitions)
            done, cursor = cached.versions, cached.dump()
        keys, skipped = keys_by_catalog(state.catalog for state in listed.catalogs)
        for line in [*listed.warnings, *skipped]:
            context.log.warning(line)
        wanted = [
            Wanted(key, state.version, state.indexed_at.timestamp() if state.indexed_at else 0.0)
            for state in listed.catalogs
            if (key := keys.get(state.catalog)) is not None
            # Of a new catalog without products nothing could be published.
            and (state.product_count != 0 or key in done)
        ]
        return request_runs(
            context,
            products,
            catalogs,
            wanted=wanted,
            done=done,
            busy=busy,
            now=now.timestamp(),
            nothing_due=f"No catalog was re-indexed, of {len(listed.catalogs):,}.",
            partition_of=lambda key: partitions.key(key, now),
            key_of=partitions.catalog_key,
            cursor=cursor,
        )

    return catalog_sensor


def service_of_a_tick(octogen: OctogenResource) -> CatalogService:
    """Return the service of a resource, whose requests end before the tick has to."""
    service = octogen.service()
    deadline = min(service.retry.deadline, LISTING_TIMEOUT)
    retry = dataclasses.replace(service.retry, deadline=deadline)
    return dataclasses.replace(service, retry=retry).within(_MAX_LISTING_SECONDS)


def _list_catalogs(octogen: OctogenResource) -> CatalogList:
    return service_of_a_tick(octogen).fetch_catalogs()


class _CachedVersions(msgspec.Struct):
    """The version of the last snapshot of each catalog, of whichever day: the sensor's cursor.

    An asset of catalogs and days has a partition for each pair, so reading the last snapshots of a
    year takes seconds. It is a cache: without it, or if it cannot be read, all are read.
    """

    versions: dict[str, str] = msgspec.field(default_factory=dict)
    last_event: int = 0
    wiped_at: float = 0.0
    """The time at which the asset was last wiped."""

    @classmethod
    def load(cls, cursor: str | None) -> "_CachedVersions":
        with contextlib.suppress(msgspec.MsgspecError, zlib.error, ValueError):
            return msgspec.json.decode(zlib.decompress(base64.b64decode(cursor or "")), type=cls)
        return cls()

    def dump(self) -> str:
        # Dagster keeps the cursor with each tick, and thousands of catalogs are 450 kB.
        return base64.b64encode(zlib.compress(msgspec.json.encode(self, order="sorted"))).decode()

    def update(
        self, instance: dg.DagsterInstance, asset: dg.AssetKey, partitions: PartitionLayout
    ) -> None:
        """Read the materializations since the last tick."""
        wiped_at = _wiped_at(instance, asset)
        events = self._events(instance, asset)
        if wiped_at != self.wiped_at or max(events, default=0) < self.last_event:
            # It was wiped, or its runs were deleted: SQLite gives the ids of deleted events again.
            self.versions, self.last_event, self.wiped_at = {}, 0, wiped_at
            events = self._events(instance, asset)
        for event, (partition, version) in sorted(events.items()):
            key = partitions.catalog_key(partition)
            if key is not None:
                self.versions[key] = version
                self.last_event = event

    def _events(
        self, instance: dg.DagsterInstance, asset: dg.AssetKey
    ) -> dict[int, tuple[str, str]]:
        """The partition and the version of materializations since the last tick, by their ids."""
        if not self.last_event:
            ids = latest_ids(instance, asset)
            versions = latest_versions(instance, asset)
            return {
                event: (partition, versions.get(partition, "")) for partition, event in ids.items()
            }
        events: dict[int, tuple[str, str]] = {}
        since = dg.AssetRecordsFilter(
            asset, after_storage_id=max(0, self.last_event - _EVENTS_READ_AGAIN)
        )
        cursor: str | None = None
        while True:
            read = instance.fetch_materializations(since, limit=_RECORDS_AT_ONCE, cursor=cursor)
            for record in read.records:
                materialization = record.asset_materialization
                if materialization and materialization.partition is not None:
                    version = catalog_version(
                        (materialization.tags or {}).get(DATA_VERSION_TAG, "")
                    )
                    events[record.storage_id] = materialization.partition, version
            if not read.has_more:
                return events
            cursor = read.cursor


def _wiped_at(instance: dg.DagsterInstance, asset: dg.AssetKey) -> float:
    """The time at which an asset was last wiped; 0 if it never was."""
    for record in instance.get_asset_records([asset]):
        details = record.asset_entry.asset_details
        return (details and details.last_wipe_timestamp) or 0.0
    return 0.0


_RECORDS_AT_ONCE = 1_000
_EVENTS_READ_AGAIN = 1_000
"""Events of other transactions may become visible after those with a larger id."""
