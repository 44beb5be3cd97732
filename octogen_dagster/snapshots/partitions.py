"""Partitions of catalogs and times, and the places of their snapshots.

A catalog's partition key is its Octogen key, percent-encoded where Dagster or a path would choke.
It can be turned back without network or state.
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
"""The catalogs to snapshot, one partition for each."""

ADDS_PARTITIONS = "octogen/adds_partitions_to"
"""The metadata of an asset of catalogs that names the partitions that it adds to."""
MAX_TIMES_BACK = 31
"""The number of times back that the previous snapshot is searched for.

A time without a snapshot, such as a day on which a catalog was not indexed, is skipped.
"""

_NEEDS_NO_QUOTES = re.compile(r"[A-Za-z0-9_~:@+=-]+")


def snapshot_days(start_date: str, timezone: str = "UTC") -> dg.DailyPartitionsDefinition:
    """One partition for each day, including today: the service knows only the present.

    Args:
        start_date: The first day, as 2026-11-25.
        timezone: The IANA time zone in which days begin.
    """
    zone = checked_timezone(timezone)
    return dg.DailyPartitionsDefinition(checked_day(start_date), timezone=zone, end_offset=1)


def catalog_days(
    start_date: str,
    timezone: str = "UTC",
    *,
    catalogs: dg.DynamicPartitionsDefinition = catalog_partitions,
) -> dg.MultiPartitionsDefinition:
    """One partition for each catalog and day; dimensions `catalog` and `day`.

    Args:
        start_date: The first day, as 2026-11-25.
        timezone: The IANA time zone in which days begin.
        catalogs: The partitions of the catalogs.
    """
    return dg.MultiPartitionsDefinition(
        {"catalog": catalogs, "day": snapshot_days(start_date, timezone)}
    )


class PartitionLayout:
    """The partitions of an asset, read as `catalogs`, `times`, both or neither."""

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
                "Partitions of two dimensions must be a catalog and a time: see "
                "octogen_dagster.catalog_days."
            )
        time_name = partitions_def.time_window_dimension.name
        (catalog_name,) = set(partitions_def.partition_dimension_names) - {time_name}
        self._names = catalog_name, time_name

    def catalog_key(self, partition_key: str) -> str | None:
        """The catalog's part of a partition key, still encoded."""
        return self._split(partition_key)[0]

    def window(self, partition_key: str) -> tuple[datetime, datetime] | None:
        """The start and the end of a partition's time; None without times."""
        _, time_key = self._split(partition_key)
        if self.times is None or time_key is None:
            return None
        window = self.times.time_window_for_partition_key(time_key)
        return window.start, window.end

    def is_present(self, partition_key: str, now: datetime) -> bool:
        """True if a partition's time includes now, or if it has no time."""
        window = self.window(partition_key)
        return window is None or is_within(window, now)

    def key(self, catalog_key: str | None, moment: datetime) -> str:
        """The partition of a catalog, without catalogs None, at a moment."""
        if self.times is None:
            assert catalog_key is not None
            return catalog_key
        time_key = self.times.get_partition_key_for_timestamp(moment.timestamp())
        if self._names is None or catalog_key is None:
            return time_key
        return dg.MultiPartitionKey(dict(zip(self._names, (catalog_key, time_key), strict=True)))

    def before(self, partition_key: str) -> str | None:
        """The partition of the same catalog one time earlier; None for the first time."""
        window = self.window(partition_key)
        if self.times is None or window is None:
            return None
        if not self.times.get_prev_partition_window(window[0]):
            return None
        # In UTC, since local times repeat or are missing when clocks change.
        just_before = window[0].astimezone(UTC) - timedelta(seconds=1)
        return self.key(self.catalog_key(partition_key), just_before)

    def times_before(self, partition_key: str) -> Iterator[str]:
        """The 31 partitions of the same catalog before one, the last one first."""
        before = self.before(partition_key)
        for _ in range(MAX_TIMES_BACK):
            if before is None:
                return
            yield before
            before = self.before(before)

    def _split(self, partition_key: str) -> tuple[str | None, str | None]:
        """The keys of a partition's catalog and of its time."""
        if self._names is None:
            return (partition_key, None) if self.times is None else (None, partition_key)
        assert isinstance(self._definition, dg.MultiPartitionsDefinition)
        if partition_key.count("|") != 1:
            return None, None
        keys = self._definition.get_partition_key_from_str(partition_key).keys_by_dimension
        return keys[self._names[0]], keys[self._names[1]]


def catalog_partition_key(catalog: str) -> str:
    """The partition key of a catalog.

    Args:
        catalog: The catalog's key at Octogen.

    Raises:
        ValueError: The catalog key is empty, or too long to name a file.
    """
    if not catalog.strip():
        raise ValueError("A catalog key must not be empty.")
    key = catalog
    if not _NEEDS_NO_QUOTES.fullmatch(catalog):
        key = quote(catalog, safe="-_.~:@+=").replace("..", "%2E%2E")
    if len(key) > MAX_COMPONENT_LENGTH / 3:  # a path encodes a character as three
        path_component(key)
    return key


def keys_by_catalog(catalogs: Iterable[str]) -> tuple[dict[str, str], list[str]]:
    """The partition keys of catalogs, and a line for the log about each that cannot have one."""
    keys: dict[str, str] = {}
    skipped = []
    for catalog in catalogs:
        try:
            keys[catalog] = catalog_partition_key(catalog)
        except ValueError as error:
            skipped.append(f"Skipped catalog {catalog[:60]!r}. {error}")
    return keys, skipped


def catalog_of(partition_key: str) -> str:
    """The catalog key of a partition key."""
    return unquote(partition_key)


class SnapshotKeys:
    """The keys of an asset's snapshots in a store, and those of one of its partitions.

    An asset `a/b` is `a/b.parquet`, its partition `k` is `a/b/k.parquet`. `partition` is None for
    an asset without partitions, and where only those of the asset are asked for.
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
        """True if the asset has partitions of time."""
        return self._partitions.times is not None

    @property
    def own(self) -> str:
        """The key of the partition, or of an asset without partitions."""
        return self.of(self.partition)

    def of(self, partition: str | None) -> str:
        """The key of a partition; None for an asset without partitions."""
        parts = list(self.asset.path)
        if isinstance(partition, dg.MultiPartitionKey):
            parts += [key for _, key in sorted(partition.keys_by_dimension.items())]
        elif partition is not None:
            parts.append(partition)
        return f"{'/'.join(path_component(part) for part in parts)}.parquet"

    @property
    def saved_pages(self) -> str:
        """The folder of the saved pages of all partitions, so that each run removes old ones."""
        *folders, name = (path_component(part) for part in self.asset.path)
        return "/".join([*folders, f".{name}.pages"])

    def partition_before(self) -> str | None:
        """The last of the 31 partitions before the own one that has a snapshot, or None."""
        times = {self.of(key): key for key in self.times_before()}
        # The listing of a folder costs no more than to ask for one of its files.
        folders = dict.fromkeys(key.rpartition("/")[0] for key in times)
        there = {file.key for folder in folders for file in self.store.files(folder)}
        return next((times[key] for key in times if key in there), None)

    def times_before(self) -> Iterator[str]:
        """The 31 partitions before the own one, the last one first."""
        assert self.partition is not None
        return self._partitions.times_before(self.partition)

    def latest(self) -> str | None:
        """The key of the own snapshot if it exists, or else that of `partition_before`."""
        if self.store.exists(self.own):
            return self.own
        before = self.partition_before() if self.has_times else None
        return None if before is None else self.of(before)

    @property
    def _partitions(self) -> PartitionLayout:
        return PartitionLayout(self._partitions_def)
