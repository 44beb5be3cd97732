"""The snapshots that are in a history: what each says, and how the history's file keeps it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

import polars as pl

from octogen_dagster.frames.stored import catalogs_without_products
from octogen_dagster.history.tracking import PRODUCTS, Tracking, UnfitSnapshotError
from octogen_dagster.io_source import collect_batches

OBSERVED = "octogen.observed"
"""The metadata of a history's file that says which snapshots are in it."""
FORGOTTEN = "octogen.forgotten"
"""The metadata of a history's file that says which snapshots were taken out of it."""
_FORMAT = "octogen.history_format"
"""The metadata of a history's file that says how the rest of it is to be read."""
_LEFT_OUT = "octogen.left_out"
_VERSIONS = "octogen.snapshots"
_LACKING = "octogen.lacking"
RUN_ID = "octogen.run_id"
"""The metadata of a file that says which run published it."""

_FORMAT_NUMBER = 1


class Observation(NamedTuple):
    """A snapshot in a history.

    Attributes:
        catalogs: The catalogs of which it has all products, in lower case, and "" for products
            without one; None for all catalogs.
        run_id: The run that published it; empty if its file does not say so.
        partition: The partition of a time that it is of; empty without partitions of time.
    """

    catalogs: frozenset[str] | None
    run_id: str = ""
    partition: str = ""

    def covers(self, catalog: str | None) -> bool:
        return self.catalogs is None or (catalog or "").lower() in self.catalogs

    @property
    def is_covered(self) -> pl.Expr:
        """The rows of its catalogs."""
        if self.catalogs is None:
            return pl.lit(True)
        catalog = pl.col("catalog_key").fill_null("").str.to_lowercase()
        return catalog.is_in(sorted(self.catalogs))


Observed = Mapping[datetime, Observation]
"""The snapshots in a history by their `fetched_at`."""


class LeftOut(NamedTuple):
    """A snapshot that a history has no place for.

    Attributes:
        fetched_at: When it was read; None if it does not say so.
        partition: The partition that it is of, if the history reads several.
        reason: What is wrong with it, and what to do.
    """

    fetched_at: datetime | None
    partition: str
    reason: str

    @property
    def name(self) -> str:
        of_time = f" of {self.fetched_at:%Y-%m-%d %H:%M:%S} UTC" if self.fetched_at else ""
        return f"The snapshot{of_time}{f', partition {self.partition}' if self.partition else ''}"

    def is_of(self, times: Collection[datetime], partitions: Collection[str]) -> bool:
        """True if it is a snapshot of these partitions, or without one of these times."""
        if self.partition:
            return self.partition in partitions
        return self.fetched_at is None or self.fetched_at in times


@dataclass
class Contents:
    """The snapshots that a history's file is made of, as its metadata says them.

    Attributes:
        observed: Those that are in it.
        forgotten: Those that were taken out, by `fetched_at`, with a digest of their products.
        left_out: Those that it has no place for.
        versions: The versions that it has read of partitions.
        lacking: The columns that the newest snapshot does not have, of a linked view.
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
        """Return the metadata of a history's file.

        Of the catalogs of a snapshot it has those that the one before does not cover, and the
        reverse: a search over hundreds of shops covers the same ones each day.
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
    """Read which snapshots are in a history from the metadata of its file, the oldest first."""
    if (number := json.loads(metadata.get(_FORMAT, "1"))) != _FORMAT_NUMBER:
        raise UnfitSnapshotError(
            f"The history's file has the format {number}, and this version of octogen-dagster "
            f"reads the format {_FORMAT_NUMBER}. Install the version that wrote it or a later one, "
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
    """Look at which catalogs a snapshot has all products of.

    A whole catalog without products was withdrawn, which says nothing about its products.
    """
    needed = tracking.key[1:] if tracking.of_products else tracking.key
    found = snapshot.select(
        tracking.catalog.fill_null("").str.to_lowercase().unique().implode().alias("catalogs"),
        *(pl.col(name).is_null().any() for name in needed),
    ).collect(engine="streaming")
    row = tracking.row
    if lacking := [name for name in needed if found.item(0, name)]:
        raise UnfitSnapshotError(
            f"The snapshot has a {row} without a {lacking[0]}, so it has no place in a history. "
            f"Give each {row} a {lacking[0]}, or leave it out, before you store it."
        )
    keys = snapshot.select(tracking.hashed).collect(engine="streaming")
    if keys.to_series().n_unique() < len(keys):
        raise UnfitSnapshotError(
            f"The snapshot has a {row} more than once, so it has no place in a history. Remove "
            f"repeats by {' and '.join(tracking.key)} before you store it."
        )
    others = catalogs_without_products(file_metadata) if tracking.of_products else None
    catalogs = None if others is None else others.union(found.item(0, "catalogs"))
    return Observation(catalogs, file_metadata.get(RUN_ID, ""))


def digest_of(rows: pl.LazyFrame, tracking: Tracking = PRODUCTS) -> str:
    """Return a digest of the keys and tracked columns of rows in any order.

    Unlike a hash of Polars it is the same in all versions.
    """
    total, row = 0, pl.struct(*tracking.key, *tracking.tracked)
    for batch in collect_batches(rows.select(row.struct.json_encode()), engine="streaming"):
        for text in batch.to_series():
            total += int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")
    return f"{total % 2**64:016x}"
