"""Publishes one snapshot of an asset or a partition.

    Publication.publish → the source's reading → write_parquet, whose thread reads the source →
    completeness checks → snapshot_metadata → Store.publish

The file is written to a temporary name and its footer is read back before it replaces the previous
snapshot, which is kept for histories that have not read it yet. Earlier publications are looked up
in Dagster's materializations.
"""

from __future__ import annotations

import contextlib
import functools
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

import dagster as dg
import polars as pl

from octogen_dagster.assets.latest import DATA_VERSION_TAG, indexed_again, latest_ids
from octogen_dagster.frames.kinds import Published
from octogen_dagster.frames.products import kind_of_rows
from octogen_dagster.frames.source import (
    ANY,
    FETCHED_AT,
    ROWS,
    STORED_AT,
    SnapshotTarget,
    check_complete,
    check_not_shrunken,
)
from octogen_dagster.snapshots.data_version import SnapshotVersion, content_of, snapshot_version
from octogen_dagster.snapshots.metadata import snapshot_metadata
from octogen_dagster.snapshots.waiting import keep_for_readers
from octogen_dagster.storage.store import (
    ASSET_KEY,
    PARTITION_KEY,
    DamagedError,
    Store,
    write_parquet,
)

if TYPE_CHECKING:
    import threading

    from octogen_dagster.assets.definition import Metadata
    from octogen_dagster.frames.kinds import TableKind
    from octogen_dagster.frames.source import Reading, SnapshotSource
    from octogen_dagster.snapshots.partitions import SnapshotKeys

_RUN_ID = "octogen.run_id"
REPORTED_BEFORE = "octogen/first_reported_at"
"""Metadata key on a repeated materialization. Only the original one's costs are counted."""
_PARENT_TAG = "dagster/parent_run_id"
_LAST_REPORTS = 25
"""The number of materializations in the trend line."""
_RECORDS_AT_ONCE = 500
"""Records per query; Dagster's maximum is 10,000."""


@dataclass(frozen=True)
class PublishingStep:
    """A step that publishes snapshots.

    In a test without a run, `instance` and `run_id` are None.
    """

    asset: dg.AssetKey
    partitions_def: dg.PartitionsDefinition[Any] | None
    log: dg.DagsterLogManager
    instance: dg.DagsterInstance | None
    run_id: str | None
    key: str

    @classmethod
    def of(cls, context: dg.AssetExecutionContext) -> PublishingStep:
        return cls(
            context.asset_key,
            context.assets_def.partitions_def,
            context.log,
            context.instance,
            context.run.run_id,
            context.op_def.name,
        )

    def reported_before(self) -> dict[str, dg.EventLogRecord]:
        """Return the materializations that this run and the runs it retries have reported."""
        logged: dict[str, dg.EventLogEntry] = {}
        for entry in self.logged_before(dg.DagsterEventType.ASSET_MATERIALIZATION):
            event = entry.asset_materialization
            if event and event.asset_key == self.asset and event.partition is not None:
                logged.setdefault(event.partition, entry)
        # A killed process might have written the run's log but not the asset's records.
        return {
            partition: record
            for partition, record in last_records(self.instance, self.asset, list(logged)).items()
            if record.timestamp >= logged[partition].timestamp
        }

    def evaluated_before(self) -> Mapping[str, Collection[str]]:
        """Return the checks that this run and the runs it retries have evaluated, by partition."""
        found = defaultdict[str, set[str]](set)
        for entry in self.logged_before(dg.DagsterEventType.ASSET_CHECK_EVALUATION):
            evaluation = entry.asset_check_evaluation
            if (
                evaluation
                and evaluation.asset_key == self.asset
                and evaluation.partition is not None
            ):
                found[evaluation.partition].add(evaluation.check_name)
        return found

    def logged_before(self, kind: dg.DagsterEventType) -> Iterator[dg.EventLogEntry]:
        """Yield events from this run and the runs it retries, latest run first."""
        if self.instance is not None:
            for run in retried_runs(self.instance, self.run_id):
                yield from self.instance.all_logs(run.run_id, of_type=kind)

    def materialization(
        self, partition: str, metadata: Mapping[str, Any], version: SnapshotVersion | None = None
    ) -> dg.AssetMaterialization:
        """Build a materialization for one partition in a run of several partitions.

        If there is no version, the data version is unique to the run.
        """
        tags = {DATA_VERSION_TAG: self.run_id or ""}
        if version:
            tags = {DATA_VERSION_TAG: version.data_version, **version.tags}
            tags["dagster/data_version_is_user_provided"] = "true"
        if isinstance(partition, dg.MultiPartitionKey):
            keys = partition.keys_by_dimension.items()
            tags |= {f"dagster/partition/{name}": key for name, key in keys}
        return dg.AssetMaterialization(
            self.asset, partition=partition, metadata=metadata, tags=tags
        )

    def observations(
        self, partition: str | None, version: SnapshotVersion | None
    ) -> Iterator[dg.AssetObservation]:
        """Yield an observation if the catalog was re-indexed without changes."""
        if partition is not None and version and version.unchanged_in:
            yield indexed_again(self.asset, partition, version.data_version, version.unchanged_in)


def reported_again(record: dg.EventLogRecord) -> dg.AssetMaterialization | None:
    """Return a materialization from the event log, marked as already reported."""
    event = record.asset_materialization
    first = {REPORTED_BEFORE: dg.MetadataValue.timestamp(record.timestamp)}
    return event and event.with_metadata({**first, **event.metadata})


class PublishedSnapshot(NamedTuple):
    """A published snapshot, ready to be reported to Dagster.

    `remove_pages` removes the saved pages. If the run dies before it reports the snapshot, a retry
    resumes from the saved pages. `version` is None if Dagster assigns the data version, or if the
    rows are loaded into a database.
    """

    metadata: Metadata
    remove_pages: Callable[[], None]
    version: SnapshotVersion | None = None


class Publication:
    """Publishes one snapshot in a step."""

    def __init__(
        self,
        step: PublishingStep,
        keys: SnapshotKeys,
        kind: TableKind,
        resume_within: timedelta,
        warn: Callable[[str], None] | None = None,
    ) -> None:
        self._step = step
        self._keys = keys
        self._kind = kind
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

    def publish(
        self,
        source: SnapshotSource,
        stop: threading.Event,
        note_read: Callable[[], None] = lambda: None,
        also: Mapping[str, Any] = MappingProxyType({}),
        catalog_version: str | None = None,
    ) -> PublishedSnapshot:
        """Read a source and publish its rows. To end the read from another thread, set `stop`.

        `catalog_version` is the version of the catalog from which the rows come, or an empty string
        if the catalog has no version. If it is None, Dagster assigns the data version.
        """
        with source.reading(self._target, stop) as reading:
            metadata, version = self._publish(reading, stop, note_read, also, catalog_version)
        published = reading.published  # releases the frame

        def remove_pages() -> None:
            try:
                published()
            except Exception as error:
                # The snapshot is complete, whatever an object store raises here.
                self.warn(f"Could not remove temporary files: {error}")

        return PublishedSnapshot(metadata, remove_pages, version)

    def _publish(
        self,
        reading: Reading,
        stop: threading.Event,
        note_read: Callable[[], None],
        also: Mapping[str, Any],
        catalog_version: str | None,
    ) -> tuple[Metadata, SnapshotVersion | None]:
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
            # The next partition can be read while this one is checked and published.
            note_read()
            outcome = reading.outcome()
            check_complete(outcome, rows, uri)
            existing = self._existing(key)
            if limits.min_rows_percent:
                latest = key if existing else keys.latest()
                file_metadata = existing if latest == key else self._existing(latest)
                check_not_shrunken(limits, rows, _row_count(store, latest, file_metadata), uri)
            row_count = "row_count" if keys.partition is None else "partition_row_count"
            stored: Metadata = {f"dagster/{row_count}": rows, "dagster/uri": uri}
            version = None
            if catalog_version is not None:
                rows_written = pl.scan_parquet(unfinished, glob=False)
                kind = kind_of_rows(self._kind, rows_written.collect_schema())
                content = content_of(rows_written, outcome.file_metadata, kind.volatile)
                version = self._version(content, catalog_version, existing)
            snapshot = pl.scan_parquet(unfinished, glob=False)
            # Compared now, because the previous snapshot is replaced below.
            metadata = snapshot_metadata(
                self._kind,
                outcome,
                Published(snapshot, outcome.file_metadata, lambda: self._before(existing)),
                stored,
                self.warn,
                also=also,
                size=unfinished.stat().st_size,
                earlier=lambda: [
                    event.metadata
                    for record in self._records
                    if (event := record.asset_materialization)
                ],
            )
            if existing and not self._has_times:
                keep_for_readers(store, key, existing, self.warn)
            if reading.replaces is ANY:
                store.publish(unfinished, key)
            else:
                store.publish_if(reading.replaces, unfinished, key)
            return metadata, version

    def _version(
        self, content: str, catalog_version: str, existing: Mapping[str, str]
    ) -> SnapshotVersion:
        """Compare the content with the latest materialization, and return the snapshot's version.

        If the asset has time partitions, the version always changes, because the sensor's cursor
        tracks only materializations.
        """
        keys, instance, records = self._keys, self._step.instance, self._records
        if instance and self._has_times:
            records = read_last(instance, keys.asset, keys.partition, 1)
        last = records[0] if records else None
        is_there = last is not None and existing.get(_RUN_ID) == last.run_id
        return snapshot_version(
            content,
            catalog_version,
            tags_of(last),
            is_stored=is_there and not self._has_times,
            run_id=self._step.run_id,
        )

    def _before(self, existing: Mapping[str, str]) -> tuple[pl.LazyFrame, dict[str, str]] | None:
        """Open the previous snapshot to compare it with the new snapshot.

        For a time partition, open the latest snapshot in an earlier partition. Otherwise, open the
        snapshot that the new snapshot replaces.
        """
        keys = self._keys
        if not self._has_times:
            return self._store.open(keys.own) if existing else None
        partition = keys.partition_before()
        return None if partition is None else self._store.open(keys.of(partition))

    @functools.cached_property
    def _has_times(self) -> bool:
        with contextlib.suppress(ValueError):  # user-defined dimensions without a time
            return self._keys.has_times
        return False

    @functools.cached_property
    def _records(self) -> Sequence[dg.EventLogRecord]:
        """The latest materializations, newest first.

        For a time partition, these are materializations of earlier partitions.
        """
        instance, keys = self._step.instance, self._keys
        if instance is None:
            return []
        if self._has_times:
            times = list(keys.times_before())
            found = last_records(instance, keys.asset, times)
            return [found[key] for key in times if key in found]
        return read_last(instance, keys.asset, keys.partition, _LAST_REPORTS)

    def _file_metadata(self) -> dict[str, str]:
        now = datetime.now(UTC).isoformat()
        file_metadata = {ASSET_KEY: self._keys.asset.to_user_string(), STORED_AT: now}
        if self._step.run_id is not None:
            file_metadata[_RUN_ID] = self._step.run_id
        if self._keys.partition is not None:
            file_metadata[PARTITION_KEY] = self._keys.partition
        if self._kind.accumulates:
            # Overridden by sources that know when their rows were fetched.
            file_metadata[FETCHED_AT] = now
        return file_metadata

    def _existing(self, key: str | None) -> dict[str, str]:
        """Return the stored file's metadata; empty if the file is missing or damaged."""
        try:
            return self._store.metadata(key) if key else {}
        except DamagedError as error:
            self.warn(f"{error} This run replaces the file.")
            return {}


def _row_count(store: Store, key: str | None, file_metadata: Mapping[str, str]) -> int:
    """Return a snapshot's number of rows, or 0 if the snapshot is missing or damaged."""
    if key is None or not file_metadata:
        return 0
    rows = file_metadata.get(ROWS)  # only some sources write it
    return store.count_rows(key) if rows is None else int(rows)


def read_last(
    instance: dg.DagsterInstance, asset: dg.AssetKey, partition: str | None, limit: int
) -> list[dg.EventLogRecord]:
    """Return the latest materializations of a partition or an asset, newest first."""
    only = None if partition is None else [partition]
    wanted = dg.AssetRecordsFilter(asset, asset_partitions=only)
    return list(instance.fetch_materializations(wanted, limit=limit).records)


def tags_of(record: dg.EventLogRecord | None) -> Mapping[str, str]:
    event = record and record.asset_materialization
    return (event and event.tags) or {}


def last_records(
    instance: dg.DagsterInstance | None, asset: dg.AssetKey, partitions: Sequence[str]
) -> dict[str, dg.EventLogRecord]:
    """Return the latest materializations by partition."""
    found = dict[str, dg.EventLogRecord]()
    for first in range(0, len(partitions), _RECORDS_AT_ONCE):
        assert instance is not None
        latest = latest_ids(instance, asset, partitions[first : first + _RECORDS_AT_ONCE])
        if not latest:
            continue
        filters = dg.AssetRecordsFilter(asset, storage_ids=list(latest.values()))
        for record in instance.fetch_materializations(filters, limit=len(latest)).records:
            if record.partition_key is not None:
                found[record.partition_key] = record
    return found


def retried_runs(instance: dg.DagsterInstance, run_id: str | None) -> Iterator[dg.DagsterRun]:
    """Yield a run and the runs it retries, latest first.

    A re-execution of a successful run is not a retry.
    """
    while run_id:
        run = instance.get_run_by_id(run_id)
        if run is None or run.status is dg.DagsterRunStatus.SUCCESS:
            return
        yield run
        run_id = parent_of(run)


def parent_of(run: dg.DagsterRun) -> str | None:
    """Return the ID of the run that `run` re-executes."""
    return run.parent_run_id or run.tags.get(_PARENT_TAG)
