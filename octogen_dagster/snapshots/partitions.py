"""Catalog and time partitions, and where their snapshots are stored.

A catalog's partition key is its Octogen key, percent-encoded if Dagster or a file path requires it.
The partition key can be decoded without a request.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote

import dagster as dg

from octogen_dagster.frames.source import is_within
from octogen_dagster.storage.store import MAX_COMPONENT_LENGTH, path_component
from octogen_dagster.validation import checked_day, checked_timezone

if TYPE_CHECKING:
    from octogen_dagster.storage.store import Store

catalog_partitions = dg.DynamicPartitionsDefinition(name="octogen_catalogs")
"""The catalogs to snapshot, one partition per catalog."""

ADDS_PARTITIONS = "octogen/adds_partitions_to"
"""Metadata key on a catalogs asset. The value names the partitions definition for new catalogs."""
MAX_TIMES_BACK = 31
"""Number of earlier time partitions to search for the previous snapshot.

Partitions without a snapshot are skipped, for example a day on which the catalog was not indexed.
"""

_NEEDS_NO_QUOTES = re.compile(r"[A-Za-z0-9_~:@+=-]+")


def snapshot_days(start_date: str, timezone: str = "UTC") -> dg.DailyPartitionsDefinition:
    """Return daily partitions up to and including today. The service has current data only.

    Args:
        start_date: The first day, such as 2026-11-25.
        timezone: The days' IANA time zone.
    """
    zone = checked_timezone(timezone)
    return dg.DailyPartitionsDefinition(checked_day(start_date), timezone=zone, end_offset=1)


def catalog_days(
    start_date: str,
    timezone: str = "UTC",
    *,
    catalogs: dg.DynamicPartitionsDefinition = catalog_partitions,
) -> dg.MultiPartitionsDefinition:
    """Return one partition per catalog and day, with the dimensions `catalog` and `day`.

    Args:
        start_date: The first day, such as 2026-11-25.
        timezone: The days' IANA time zone.
        catalogs: The catalog partitions.
    """
    return dg.MultiPartitionsDefinition(
        {"catalog": catalogs, "day": snapshot_days(start_date, timezone)}
    )


class PartitionLayout:
    """An asset's partitions, split into `catalogs` and `times`; either can be None."""

    def __init__(self, partitions_def: dg.PartitionsDefinition[Any] | None) -> None:
        self.catalogs: dg.PartitionsDefinition[Any] | None = None
        self.times: dg.TimeWindowPartitionsDefinition | None = None
        self._names: tuple[str, str] | None = None
        self._definition = partitions_def
        dimensions = [partitions_def]
        if isinstance(partitions_def, dg.MultiPartitionsDefinition):
            dimensions = [entry.partitions_def for entry in partitions_def.partitions_defs]
        for dimension in dimensions:
            if isinstance(dimension, dg.TimeWindowPartitionsDefinition):
                self.times = dimension
            else:
                self.catalogs = dimension
        if not isinstance(partitions_def, dg.MultiPartitionsDefinition):
            return
        if self.catalogs is None or self.times is None:
            raise ValueError(
                "Two-dimensional partitions must have a catalog and a time dimension. Use "
                "octogen_dagster.catalog_days."
            )
        time_name = partitions_def.time_window_dimension.name
        (catalog_name,) = set(partitions_def.partition_dimension_names) - {time_name}
        self._names = catalog_name, time_name

    def catalog_key(self, partition_key: str) -> str | None:
        """Return the encoded catalog key, or None if the asset has no catalog partitions."""
        return self._split(partition_key)[0]

    def window(self, partition_key: str) -> tuple[datetime, datetime] | None:
        """Return a partition's start and end, or None if the asset has no time partitions."""
        _, time_key = self._split(partition_key)
        if self.times is None or time_key is None:
            return None
        window = self.times.time_window_for_partition_key(time_key)
        return window.start, window.end

    def is_present(self, partition_key: str, now: datetime) -> bool:
        """Return True if the partition includes `now`. Without time partitions, return True."""
        window = self.window(partition_key)
        return window is None or is_within(window, now)

    def key(self, catalog_key: str | None, moment: datetime) -> str:
        """Return the partition key for a catalog and a point in time.

        Pass None as `catalog_key` if the asset has no catalog partitions.
        """
        if self.times is None:
            assert catalog_key is not None
            return catalog_key
        time_key = self.times.get_partition_key_for_timestamp(moment.timestamp())
        if self._names is None or catalog_key is None:
            return time_key
        return dg.MultiPartitionKey(dict(zip(self._names, (catalog_key, time_key), strict=True)))

    def before(self, partition_key: str) -> str | None:
        """Return the same catalog's previous time partition, or None for the first one."""
        window = self.window(partition_key)
        if self.times is None or window is None:
            return None
        if not self.times.get_prev_partition_window(window[0]):
            return None
        # Computed in UTC, because local times repeat or are missing when clocks change.
        just_before = window[0].astimezone(UTC) - timedelta(seconds=1)
        return self.key(self.catalog_key(partition_key), just_before)

    def times_before(self, partition_key: str) -> Iterator[str]:
        """Yield the catalog's previous 31 time partitions, latest first."""
        before = self.before(partition_key)
        for _ in range(MAX_TIMES_BACK):
            if before is None:
                return
            yield before
            before = self.before(before)

    def _split(self, partition_key: str) -> tuple[str | None, str | None]:
        if self._names is None:
            return (partition_key, None) if self.times is None else (None, partition_key)
        assert isinstance(self._definition, dg.MultiPartitionsDefinition)
        if partition_key.count("|") != 1:
            return None, None
        keys = self._definition.get_partition_key_from_str(partition_key).keys_by_dimension
        return keys[self._names[0]], keys[self._names[1]]


def catalog_partition_key(catalog: str) -> str:
    """Return a catalog's partition key.

    Args:
        catalog: The catalog's Octogen key.

    Raises:
        ValueError: The catalog key is empty or too long for a file name.
    """
    if not catalog.strip():
        raise ValueError("A catalog key must not be empty.")
    key = catalog
    if not _NEEDS_NO_QUOTES.fullmatch(catalog):
        key = quote(catalog, safe="-_.~:@+=").replace("..", "%2E%2E")
    if len(key) > MAX_COMPONENT_LENGTH / 3:  # percent-encoding can triple the length
        path_component(key)
    return key


def keys_by_catalog(catalogs: Iterable[str]) -> tuple[dict[str, str], list[str]]:
    """Return partition keys by catalog, and log lines for catalogs with an invalid key."""
    keys: dict[str, str] = {}
    skipped = []
    for catalog in catalogs:
        try:
            keys[catalog] = catalog_partition_key(catalog)
        except ValueError as error:
            skipped.append(f"Skipped catalog {catalog[:60]!r}. {error}")
    return keys, skipped


def catalog_of(partition_key: str) -> str:
    """Decode the catalog key from a partition key."""
    return unquote(partition_key)


class SnapshotKeys:
    """The store keys of an asset's snapshots.

    The asset `a/b` is stored as `a/b.parquet`, and its partition `k` as `a/b/k.parquet`.
    `partition` is the selected partition. It is None if the asset has no partitions or none is
    selected.
    """

    def __init__(
        self,
        store: Store,
        asset: dg.AssetKey,
        partitions_def: dg.PartitionsDefinition[Any] | None = None,
        partition: str | None = None,
    ) -> None:
        self.store = store
        self.asset = asset
        self.partition = partition
        self._partitions_def = partitions_def

    @property
    def has_times(self) -> bool:
        return self._partitions.times is not None

    @property
    def own(self) -> str:
        """The store key for the selected partition, or for an asset without partitions."""
        return self.of(self.partition)

    def of(self, partition: str | None) -> str:
        """Return the store key for a partition. Pass None if the asset has no partitions."""
        parts = list(self.asset.path)
        if isinstance(partition, dg.MultiPartitionKey):
            parts += [key for _, key in sorted(partition.keys_by_dimension.items())]
        elif partition is not None:
            parts.append(partition)
        return f"{'/'.join(path_component(part) for part in parts)}.parquet"

    @property
    def saved_pages(self) -> str:
        """The folder that all partitions share for saved pages, so any run can remove old pages."""
        *folders, name = (path_component(part) for part in self.asset.path)
        return "/".join([*folders, f".{name}.pages"])

    def partition_before(self) -> str | None:
        """Return the latest earlier partition with a snapshot, searching at most 31 partitions."""
        times = {self.of(key): key for key in self.times_before()}
        # Listing a folder costs no more than looking up a single file.
        folders = dict.fromkeys(key.rpartition("/")[0] for key in times)
        existing = {file.key for folder in folders for file in self.store.files(folder)}
        return next((times[key] for key in times if key in existing), None)

    def times_before(self) -> Iterator[str]:
        """Yield the 31 previous partitions, latest first."""
        assert self.partition is not None
        return self._partitions.times_before(self.partition)

    def latest(self) -> str | None:
        """Return the store key of the partition's snapshot.

        If the snapshot is missing, return the key of the previous partition's snapshot.
        """
        if self.store.exists(self.own):
            return self.own
        before = self.partition_before() if self.has_times else None
        return None if before is None else self.of(before)

    @property
    def _partitions(self) -> PartitionLayout:
        return PartitionLayout(self._partitions_def)
