"""The publication of a snapshot: of an asset, or of one of its partitions.

    Publication.publish → the source's reading → write_parquet, in whose thread Polars asks the
    source for rows → what was written is checked → Store.publish → snapshot_metadata

The file is written aside, its footer is read back, and only then does it replace the one before.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, NamedTuple

import dagster as dg
import polars as pl

from octogen_dagster.frames.source import (
    ANY,
    ROWS,
    SnapshotTarget,
    check_complete,
    check_not_shrunken,
)
from octogen_dagster.snapshots.metadata import snapshot_metadata
from octogen_dagster.store import DamagedError, Store, write_parquet

if TYPE_CHECKING:
    import threading

    from octogen_dagster.asset_definition import Metadata
    from octogen_dagster.frames.source import Reading, SnapshotSource
    from octogen_dagster.snapshots.partitions import SnapshotKeys
    from octogen_dagster.snapshots.publishing_step import PublishingStep

_RUN_ID = "octogen.run_id"
_LAST_REPORTS = 25
"""How many of the last materializations are looked through for that of one run."""


class PublishedSnapshot(NamedTuple):
    """The metadata of a snapshot that was published, and what removes the pages it was read from.

    A run that dies before it has reported the snapshot is retried from these pages.
    """

    metadata: Metadata
    remove_pages: Callable[[], None]


class Publication:
    """One snapshot, and the step that publishes it."""

    def __init__(
        self,
        step: PublishingStep,
        keys: SnapshotKeys,
        resume_within: timedelta,
        warn: Callable[[str], None] | None = None,
    ) -> None:
        self._step = step
        self._keys = keys
        self._store = keys.store
        self.warn = warn or step.log.warning
        self._target = SnapshotTarget(
            step.log.info,
            self.warn,
            keys.store,
            keys.own,
            keys.latest,
            keys.saved_pages,
            resume_within=resume_within,
        )

    def publish(self, source: SnapshotSource, stop: threading.Event) -> PublishedSnapshot:
        """Read a source and publish its rows. `stop` ends the reading from another thread."""
        with source.reading(self._target, stop) as reading:
            metadata = self._publish(reading, stop)

        def remove_pages() -> None:
            try:
                reading.published()
            except Exception as error:  # of any kind, as in an object store: the snapshot is whole
                self.warn(f"Saved pages could not be removed. {error}")

        return PublishedSnapshot(metadata, remove_pages)

    def _publish(self, reading: Reading, stop: threading.Event) -> Metadata:
        store, keys, limits = self._store, self._keys, reading.limits
        key = keys.own
        uri = store.uri(key)
        with store.unfinished(key) as unfinished:
            rows = write_parquet(
                reading.frame,
                unfinished,
                metadata=lambda: {**self._file_metadata(), **reading.outcome().file_metadata},
                stop=stop,
                row_group_size=limits.row_group_size,
            )
            outcome = reading.outcome()
            check_complete(outcome, rows, uri)
            existing = self._existing(key)
            if limits.min_rows_fraction:
                latest = key if store.exists(key) else keys.latest()
                facts = existing if latest == key else self._existing(latest)
                check_not_shrunken(limits, rows, _row_count(store, latest, facts), uri)
            row_count = "row_count" if keys.partition is None else "partition_row_count"
            metadata: Metadata = {
                f"dagster/{row_count}": rows,
                "dagster/uri": uri,
                "octogen/file_size_bytes": unfinished.stat().st_size,
            }
            keep_previous = None
            if limits.keeps_previous and not keys.has_times:
                keep_previous = bool(existing) and self._was_reported(existing.get(_RUN_ID))
            # Opened before it is moved to its place, where another run may replace it.
            with unfinished.open("rb") as written:
                if reading.replaces is ANY:
                    store.publish(unfinished, key, keep_previous=keep_previous)
                else:
                    store.publish_if(reading.replaces, unfinished, key)
                snapshot = pl.scan_parquet(written, glob=False)
                metadata |= snapshot_metadata(outcome, snapshot, self.warn)
        return metadata

    def _file_metadata(self) -> dict[str, str]:
        file_metadata = {"octogen.asset_key": self._keys.asset.to_user_string()}
        if self._step.run_id is not None:
            file_metadata[_RUN_ID] = self._step.run_id
        if self._keys.partition is not None:
            file_metadata["octogen.partition_key"] = self._keys.partition
        return file_metadata

    def _existing(self, key: str | None) -> dict[str, str]:
        """The file metadata that this run replaces; empty without a usable one."""
        try:
            return self._store.metadata(key) if key else {}
        except DamagedError as error:
            self.warn(f"{error} This run replaces it.")
            return {}

    def _was_reported(self, run_id: str | None) -> bool:
        """True unless the run that published a snapshot is known and did not report it.

        Such a run died after it published the snapshot and before it reported a materialization, so
        nothing downstream has used the snapshot.
        """
        instance = self._step.instance
        if instance is None or run_id is None or not instance.has_run(run_id):
            return True
        # By the partition: the log of a run of many would be read as a whole for each of them.
        partition = self._keys.partition
        only = None if partition is None else [partition]
        filters = dg.AssetRecordsFilter(self._keys.asset, asset_partitions=only)
        records = instance.fetch_materializations(filters, limit=_LAST_REPORTS).records
        return any(record.run_id == run_id for record in records)


def _row_count(store: Store, key: str | None, file_metadata: Mapping[str, str]) -> int:
    """Return the number of rows of a snapshot; 0 without a usable one."""
    if key is None or not file_metadata:
        return 0
    rows = file_metadata.get(ROWS)  # earlier versions do not write it
    return store.count_rows(key) if rows is None else int(rows)
