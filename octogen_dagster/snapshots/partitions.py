"""Partitions of catalogs and times.

A catalog's partition key is its Octogen key, percent-encoded where Dagster or a path would choke.
It can be turned back without network or state.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta, timezone
from typing import Any
from urllib.parse import quote, unquote

import dagster as dg

from octogen_dagster.frames.reading import is_within

catalog_partitions = dg.DynamicPartitionsDefinition(name="octogen_catalogs")
"""The catalogs to snapshot, one partition for each."""

MAX_TIMES_BACK = 31
"""How many times back the previous snapshot is searched for. A time without a snapshot, such as a
day on which a catalog was not indexed, is skipped."""

_MAX_COMPONENT_LENGTH = 200
_NEEDS_NO_QUOTES = re.compile(r"[A-Za-z0-9_~:@+=-]+")


def snapshot_days(start_date: str, timezone: str = "UTC") -> dg.DailyPartitionsDefinition:
    """One partition for each day, including today: the service knows only the present.

    Args:
        start_date: The first day, as 2026-11-25.
        timezone: The IANA time zone in which days begin.
    """
    return dg.DailyPartitionsDefinition(start_date, timezone=timezone, end_offset=1)


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


class SnapshotPartitions:
    """The partitions of an asset, read as catalogs, times, both or neither.

    Args:
        partitions_def: The asset's partitions; None if it has none.

    Attributes:
        catalogs: The partitions whose keys are catalogs; None if there are none.
        times: The partitions of time; None if there are none.

    Raises:
        ValueError: The partitions have two dimensions that are not a catalog and a time.
    """

    def __init__(self, partitions_def: dg.PartitionsDefinition[Any] | None) -> None:
        self.catalogs: dg.PartitionsDefinition[Any] | None = None
        self.times: dg.TimeWindowPartitionsDefinition | None = None
        self._names: tuple[str, str] | None = None
        self._definition = partitions_def
        if not isinstance(partitions_def, dg.MultiPartitionsDefinition):
            self._set(partitions_def)
            return
        for entry in partitions_def.partitions_defs:
            self._set(entry.partitions_def)
        if self.catalogs is None or self.times is None:
            raise ValueError(
                "Partitions of two dimensions must be a catalog and a time: see "
                "octogen_dagster.catalog_days."
            )
        time_name = partitions_def.time_window_dimension.name
        (catalog_name,) = set(partitions_def.partition_dimension_names) - {time_name}
        self._names = catalog_name, time_name

    def _set(self, partitions_def: dg.PartitionsDefinition[Any] | None) -> None:
        if isinstance(partitions_def, dg.TimeWindowPartitionsDefinition):
            self.times = partitions_def
        else:
            self.catalogs = partitions_def

    def catalog_key(self, partition_key: str) -> str | None:
        """The catalog's part of a partition key, still encoded.

        It is None without catalogs, and for a key of fewer or more dimensions than there are.
        """
        return self._split(partition_key)[0]

    def window(self, partition_key: str) -> tuple[datetime, datetime] | None:
        """The start and the end of a partition's time; None without times."""
        _, time_key = self._split(partition_key)
        if self.times is None or time_key is None:
            return None
        window = self.times.time_window_for_partition_key(time_key)
        return window.start, window.end

    def is_present(self, partition_key: str, now: datetime) -> bool:
        """True if a partition's time includes now, or if it has no time.

        Args:
            partition_key: The partition.
            now: The present time, with a time zone.
        """
        window = self.window(partition_key)
        return window is None or is_within(window, now)

    def key(self, catalog_key: str | None, moment: datetime) -> str:
        """The partition of a catalog at a moment.

        Args:
            catalog_key: The catalog's partition key; None without catalogs.
            moment: A time, with a time zone.

        Raises:
            ValueError: The partitions are of catalogs, and `catalog_key` is None.
        """
        if self.times is None:
            if catalog_key is None:
                raise ValueError(
                    "The partition of a catalog needs the catalog's key, and there is none: pass "
                    "the catalog's partition key."
                )
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
        just_before = window[0].astimezone(timezone.utc) - timedelta(seconds=1)
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
    if len(key) > _MAX_COMPONENT_LENGTH / 3:  # a path encodes a character as three
        path_component(key)
    return key


def keys_by_catalog(catalogs: Iterable[str]) -> tuple[dict[str, str], list[str]]:
    """The partition keys of catalogs, and a line for the log about each that cannot have one.

    Args:
        catalogs: Catalog keys.
    """
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


def path_component(key: str) -> str:
    """A file or folder name for a key. It is reversible and cannot leave its folder.

    Args:
        key: A partition key or a part of one.

    Raises:
        ValueError: The key is empty, or its name is longer than file systems allow.
    """
    name = quote(key, safe="-_.~=@+ ")
    if name.startswith(".") or name.endswith("."):
        name = name.replace(".", "%2E")
    if not name or len(name) > _MAX_COMPONENT_LENGTH:
        raise ValueError(
            f"Key {key[:60]!r} cannot name a file: the name must have 1 to "
            f"{_MAX_COMPONENT_LENGTH} characters, and has {len(name)}. Use a shorter key."
        )
    return name
