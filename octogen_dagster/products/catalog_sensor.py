"""build_catalog_sensor: request snapshots for new and re-indexed catalogs."""

import base64
import contextlib
import dataclasses
import zlib
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Any

import dagster as dg
import msgspec

from octogen_dagster.api.catalog_sources import CatalogService
from octogen_dagster.api.catalog_states import CatalogState
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

# Dagster ends ticks after 60 s, and the sensor needs time to store its result.
LISTING_TIMEOUT = 30.0
_MAX_LISTING_SECONDS = 35.0
"""Time limit for all requests and retries in a tick, in seconds."""


def build_catalog_sensor(
    products: dg.AssetsDefinition,
    *,
    name: str | None = None,
    minimum_interval_seconds: int = 300,
    resource_key: str = RESOURCE,
    _clock: Callable[[], datetime] = utc_now,
    **sensor_arguments: Any,
) -> dg.SensorDefinition:
    """Build a sensor that snapshots each catalog when it appears and when Octogen re-indexes it.

    Each tick lists the catalogs in the resource's `catalog_source`, adds a partition for each new
    one, and requests a run for each catalog whose index time differs from its last snapshot. A tick
    requests at most 50 runs; later ticks request the rest, new catalogs first. If the asset has a
    `backfill_policy`, a run can cover several due catalogs that are adjacent in Dagster's partition
    order.

    The index time is `lastIndexedAt`, or `computedAt` for `ShopCatalogs`. `NamedCatalogs` have no
    index time: each catalog is requested until it has a snapshot, so use a schedule instead. A
    catalog whose index time becomes unknown is not requested, and a new catalog waits until it has
    products. If a run fails to publish a snapshot, the catalog is requested again after 10 minutes,
    then 20, up to 6 hours. Catalogs that are no longer listed are not requested. The data for such
    catalogs is kept, and the `fresh` check lists the catalogs.

    If a request for the list of catalogs fails temporarily, the tick is skipped with the reason.
    The tick fails if the API key is missing or rejected, the account is out of credit, a setting is
    invalid, or the service is unavailable for the third tick in a row. If some shops fail, the
    sensor continues with the others.

    The sensor stores no state: it compares index times with the data versions of materializations,
    and finds its earlier requests by the run tag `octogen/request`.

    Args:
        products: An asset built by `build_products_asset`, with dynamic catalog partitions or with
            catalog and time partitions. Runs are requested for the current time partition.
        name: The sensor's name. Defaults to `<products>_catalog_sensor`.
        minimum_interval_seconds: Minimum seconds between two ticks.
        resource_key: The `OctogenResource`'s key. Change it to use more than one resource.
        sensor_arguments: Any other argument for `@dagster.sensor`.

    Raises:
        ValueError: The asset has no named dynamic partitions, or was not built by
            `build_products_asset`.
    """
    require_asset(products, "products")
    name = name or f"{products.key.to_python_identifier()}_catalog_sensor"
    partitions = PartitionLayout(products.partitions_def)
    catalogs = named_partitions(products, partitions.catalogs, "catalogs")
    _require_products(products)
    sensor_arguments.setdefault(
        "description",
        f"Requests {products.key.to_user_string()} for each new or re-indexed catalog, at most 50 "
        "runs per tick.",
    )

    @dg.sensor(
        name=name,
        target=products,
        minimum_interval_seconds=minimum_interval_seconds,
        required_resource_keys={resource_key},
        **sensor_arguments,
    )
    def catalog_sensor(
        context: dg.SensorEvaluationContext,
        **_: Any,  # resources, if called directly as in tests
    ) -> dg.SensorResult | dg.SkipReason:
        now = _clock()
        busy = read_busy(context.instance, products.key, now.timestamp(), partitions.catalog_key)
        try:
            octogen = getattr(context.resources, resource_key)
            listed = service_of_a_tick(octogen).fetch_catalogs()
        except (OctogenError, ValueError) as error:
            return skip_or_fail(context, name, "Could not list catalogs", error)
        done, cursor = _latest_versions(context, products.key, partitions)
        keys, skipped = keys_by_catalog(state.catalog for state in listed.catalogs)
        for line in [*listed.warnings, *skipped]:
            context.log.warning(line)
        return request_runs(
            context,
            products,
            catalogs,
            wanted=_wanted(listed.catalogs, keys, done),
            done=done,
            busy=busy,
            now=now.timestamp(),
            nothing_due=f"No catalog was re-indexed ({len(listed.catalogs):,} listed).",
            partition_of=lambda key: partitions.key(key, now),
            key_of=partitions.catalog_key,
            cursor=cursor,
        )

    return catalog_sensor


def _require_products(asset: dg.AssetsDefinition) -> None:
    if SEARCH not in asset.metadata_by_key[asset.key]:
        raise ValueError(
            f"Asset {asset.key.to_user_string()!r} was not built by build_products_asset, so its "
            "data versions are not index times. The sensor would request the same catalogs "
            "repeatedly. Use a schedule instead."
        )


def _wanted(
    catalogs: Iterable[CatalogState], keys: Mapping[str, str], done: Mapping[str, str]
) -> list[Wanted]:
    return [
        Wanted(key, state.version, state.indexed_at.timestamp() if state.indexed_at else 0.0)
        for state in catalogs
        if (key := keys.get(state.catalog)) is not None
        # A new catalog without products has nothing to publish.
        and (state.product_count != 0 or key in done)
    ]


def _latest_versions(
    context: dg.SensorEvaluationContext, asset: dg.AssetKey, partitions: PartitionLayout
) -> tuple[Mapping[str, str], str | None]:
    """Return a pair: the latest snapshot version by catalog, and the sensor's new cursor."""
    if partitions.times is None:
        return latest_versions(context.instance, asset), None
    cached = _CachedVersions.load(context.cursor)
    cached.update(context.instance, asset, partitions)
    return cached.versions, cached.dump()


def service_of_a_tick(octogen: OctogenResource) -> CatalogService:
    """Return the resource's service with shorter deadlines, so that the tick does not time out."""
    service = octogen.service()
    deadline = min(service.retry.deadline, LISTING_TIMEOUT)
    retry = dataclasses.replace(service.retry, deadline=deadline)
    return dataclasses.replace(service, retry=retry).within(_MAX_LISTING_SECONDS)


class _CachedVersions(msgspec.Struct):
    """The version of each catalog's latest snapshot, cached in the sensor's cursor.

    With catalog and day partitions, reading a year's materializations takes seconds. If the cursor
    is missing or unreadable, all materializations are read again.
    """

    versions: dict[str, str] = msgspec.field(default_factory=dict)
    last_event: int = 0
    wiped_at: float = 0.0
    """When the asset was last wiped."""

    @classmethod
    def load(cls, cursor: str | None) -> "_CachedVersions":
        with contextlib.suppress(msgspec.MsgspecError, zlib.error, ValueError):
            return msgspec.json.decode(zlib.decompress(base64.b64decode(cursor or "")), type=cls)
        return cls()

    def dump(self) -> str:
        # Dagster stores the cursor with every tick; thousands of catalogs would take 450 kB.
        return base64.b64encode(zlib.compress(msgspec.json.encode(self, order="sorted"))).decode()

    def update(
        self, instance: dg.DagsterInstance, asset: dg.AssetKey, partitions: PartitionLayout
    ) -> None:
        """Read the materializations since the last tick."""
        wiped_at = _wiped_at(instance, asset)
        events = self._events(instance, asset)
        if wiped_at != self.wiped_at or max(events, default=0) < self.last_event:
            # The asset was wiped or its runs deleted: SQLite reuses the ids of deleted events.
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
        """Return the partition and version for each new materialization, keyed by event ID."""
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
    """Return the time at which an asset was last wiped, or 0 if it has never been wiped."""
    for record in instance.get_asset_records([asset]):
        details = record.asset_entry.asset_details
        return (details and details.last_wipe_timestamp) or 0.0
    return 0.0


_RECORDS_AT_ONCE = 1_000
_EVENTS_READ_AGAIN = 1_000
"""Number of processed events that each tick reads again.

With concurrent transactions, an event can appear after events with larger IDs.
"""
