"""Reads and writes the list of snapshots in a history's file metadata."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

import polars as pl

from octogen_dagster.frames.stored import possibly_empty_catalogs
from octogen_dagster.history.tracking import PRODUCTS, Tracking, UnfitSnapshotError
from octogen_dagster.io_source import collect_batches

OBSERVED = "octogen.observed"
"""File metadata key: the snapshots that a history contains."""
FORGOTTEN = "octogen.forgotten"
"""File metadata key: the snapshots removed from a history."""
_FORMAT = "octogen.history_format"
"""File metadata key: the format version."""
_LEFT_OUT = "octogen.left_out"
_VERSIONS = "octogen.snapshots"
_LACKING = "octogen.lacking"
RUN_ID = "octogen.run_id"
"""File metadata key: the run that published the file."""

_FORMAT_NUMBER = 1


class Observation(NamedTuple):
    """A snapshot in a history.

    Attributes:
        catalogs: The lowercase keys of the catalogs that the snapshot covers; None for all
            catalogs. The key "" stands for products without a catalog.
        run_id: The run that published the snapshot; empty if unknown.
        partition: The snapshot's time partition; empty if there are no time partitions.
    """

    catalogs: frozenset[str] | None
    run_id: str = ""
    partition: str = ""

    def covers(self, catalog: str | None) -> bool:
        return self.catalogs is None or (catalog or "").lower() in self.catalogs

    @property
    def is_covered(self) -> pl.Expr:
        """An expression that is true for rows whose catalog the snapshot covers."""
        if self.catalogs is None:
            return pl.lit(True)
        catalog = pl.col("catalog_key").fill_null("").str.to_lowercase()
        return catalog.is_in(sorted(self.catalogs))


Observed = Mapping[datetime, Observation]
"""The snapshots in a history, by `fetched_at`."""


class LeftOut(NamedTuple):
    """A snapshot that could not be added to a history.

    Attributes:
        fetched_at: The time at which the snapshot was read; None if unknown.
        partition: The snapshot's partition, if the history reads several partitions.
        reason: The error message: what is wrong with the snapshot and what to do.
    """

    fetched_at: datetime | None
    partition: str
    reason: str

    @property
    def name(self) -> str:
        time = f" from {self.fetched_at:%Y-%m-%d %H:%M:%S} UTC" if self.fetched_at else ""
        return f"The snapshot{time}{f' (partition {self.partition})' if self.partition else ''}"

    def is_of(self, times: Collection[datetime], partitions: Collection[str]) -> bool:
        """Return True if the snapshot's partition is in `partitions`.

        A snapshot without a partition is compared by its time.
        """
        if self.partition:
            return self.partition in partitions
        return self.fetched_at is None or self.fetched_at in times


@dataclass
class Contents:
    """The snapshots recorded in a history's file metadata.

    Attributes:
        observed: The snapshots in the history.
        forgotten: A digest of each removed snapshot's products, by `fetched_at`.
        left_out: The snapshots that could not be added.
        versions: For each partition, the version of its file when it was last read.
        lacking: The columns that are missing from the latest snapshot's linked view.
    """

    observed: dict[datetime, Observation]
    forgotten: dict[datetime, str]
    left_out: list[LeftOut]
    versions: dict[str, str]
    lacking: Sequence[str] = ()

    @classmethod
    def read(cls, metadata: Mapping[str, str]) -> Contents:
        forgotten = json.loads(metadata.get(FORGOTTEN, "{}"))
        return cls(
            read_observed(metadata),
            {datetime.fromisoformat(at): digest for at, digest in forgotten.items()},
            [
                LeftOut(at and datetime.fromisoformat(at), partition, reason)
                for at, partition, reason in json.loads(metadata.get(_LEFT_OUT, "[]"))
            ],
            json.loads(metadata.get(_VERSIONS, "{}")),
            json.loads(metadata.get(_LACKING, "[]")),
        )

    def metadata(self) -> dict[str, str]:
        """Return the file metadata.

        For each snapshot, only the catalogs added and removed since the previous snapshot are
        stored, because a search over hundreds of shops covers the same catalogs every day.
        """
        entries, before = [], frozenset[str]()
        for at, (catalogs, run_id, partition) in sorted(self.observed.items()):
            entry: dict[str, object] = {"fetched_at": at.isoformat(), "run_id": run_id}
            if partition:
                entry["partition"] = partition
            if catalogs is None:
                entry["all_catalogs"] = True
            else:
                changed = {"added": catalogs - before, "removed": before - catalogs}
                entry |= {name: sorted(keys) for name, keys in changed.items() if keys}
                before = catalogs
            entries.append(entry)
        values = {
            OBSERVED: entries,
            FORGOTTEN: {at.isoformat(): digest for at, digest in sorted(self.forgotten.items())},
            _LEFT_OUT: [(at and at.isoformat(), *others) for at, *others in self.left_out],
            _VERSIONS: self.versions,
            _FORMAT: _FORMAT_NUMBER,
            **({_LACKING: self.lacking} if self.lacking else {}),
        }
        return {name: json.dumps(value) for name, value in values.items()}


def read_observed(metadata: Mapping[str, str]) -> dict[datetime, Observation]:
    """Return the snapshots recorded in a history's file metadata, oldest first."""
    if (number := json.loads(metadata.get(_FORMAT, "1"))) != _FORMAT_NUMBER:
        raise UnfitSnapshotError(
            f"The history's file has format {number}, but this version of octogen-dagster supports "
            f"format {_FORMAT_NUMBER}. Install the version that wrote the file or a later version, "
            "or restore the file from a backup."
        )
    observed, catalogs = dict[datetime, Observation](), frozenset[str]()
    for entry in json.loads(metadata.get(OBSERVED, "[]")):
        catalogs = catalogs.union(entry.get("added", ())).difference(entry.get("removed", ()))
        at = datetime.fromisoformat(entry["fetched_at"])
        covered = None if entry.get("all_catalogs") else catalogs
        observed[at] = Observation(covered, entry["run_id"], entry.get("partition", ""))
    return observed


def observation_of(
    snapshot: pl.LazyFrame, file_metadata: Mapping[str, str], tracking: Tracking = PRODUCTS
) -> Observation:
    """Return a snapshot's `Observation`, or raise an error if a key is null or duplicated.

    A whole catalog without products counts as withdrawn, so its products stay current.
    """
    needed = tracking.key[1:] if tracking.of_products else tracking.key
    found = snapshot.select(
        tracking.catalog.fill_null("").str.to_lowercase().unique().implode().alias("catalogs"),
        *(pl.col(name).is_null().any() for name in needed),
    ).collect(engine="streaming")
    row = tracking.row
    if lacking := [name for name in needed if found.item(0, name)]:
        raise UnfitSnapshotError(
            f"The snapshot has a {row} whose {lacking[0]} is null, but every {row} in a history "
            f"needs a {lacking[0]}. Set {lacking[0]} or remove the {row} before you store the "
            "snapshot."
        )
    keys = snapshot.select(tracking.hashed).collect(engine="streaming")
    if keys.to_series().n_unique() < len(keys):
        raise UnfitSnapshotError(
            f"The snapshot has duplicate {row}s, which a history cannot track. Remove duplicates "
            f"by {' and '.join(tracking.key)} before you store the snapshot."
        )
    empty = possibly_empty_catalogs(file_metadata) if tracking.of_products else None
    catalogs = None if empty is None else empty.union(found.item(0, "catalogs"))
    return Observation(catalogs, file_metadata.get(RUN_ID, ""))


def digest_of(rows: pl.LazyFrame, tracking: Tracking = PRODUCTS) -> str:
    """Return a digest of the keys and tracked columns. The row order does not change the digest.

    Unlike a Polars hash, the digest is the same in every Polars version.
    """
    total, row = 0, pl.struct(*tracking.key, *tracking.tracked)
    for batch in collect_batches(rows.select(row.struct.json_encode()), engine="streaming"):
        for text in batch.to_series():
            total += int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")
    return f"{total % 2**64:016x}"
