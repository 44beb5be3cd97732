"""The publication of one snapshot: of an asset, or of one of its partitions."""

from __future__ import annotations

import functools
import importlib
import sys
from collections import defaultdict, deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import dagster as dg
import polars as pl

from octogen_dagster.background import submit, wait_interruptibly
from octogen_dagster.errors import (
    MissingPackageError,
    OctogenAuthenticationError,
    OctogenBudgetError,
    OctogenError,
    OctogenInsufficientCreditError,
    OctogenSnapshotError,
)
from octogen_dagster.frames.pages import PageStore
from octogen_dagster.frames.source import (
    ANY,
    ROWS,
    FrameSource,
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

_Result = TypeVar("_Result")
RETURNED = (
    "a polars LazyFrame or DataFrame, a pandas DataFrame, a pyarrow Table, or "
    "OctogenResource.scan(...)"
)
"""What an asset may return."""
_RUN_ID = "octogen.run_id"
_POLL_SECONDS = 0.2
_MAX_NAMED = 20
_MAX_IN_A_ROW = 16
"""Partitions that fail one after the other by errors that may pass, before the others wait."""
_FATAL_ERRORS = (OctogenAuthenticationError, OctogenInsufficientCreditError, OctogenBudgetError)
"""Errors that every other partition would meet as well."""
_FAILED = "octogen/failed"
"""The metadata of the observation of a partition that failed for good in a run that is retried."""
_LAST_REPORTS = 25
"""How many of the last materializations are looked through for that of one run."""
_RECORDS_AT_ONCE = 500
"""Records that are asked for at once: Dagster refuses more than 10,000."""


class Published(NamedTuple):
    """The metadata of a snapshot that was published, and what removes the pages it was read from.

    A run that dies before it has reported the snapshot is retried from these pages.
    """

    metadata: Metadata
    remove_pages: Callable[[], None]


class PublishingStep(NamedTuple):
    """The step of a run that publishes snapshots; no instance and no id in a test without a run."""

    instance: dg.DagsterInstance | None
    run_id: str | None
    step: str


class Publication:
    """One snapshot and its run. It is the `SnapshotTarget` of what the snapshot is made from."""

    def __init__(
        self,
        places: SnapshotKeys,
        run: PublishingStep,
        log: dg.DagsterLogManager,
        resume_within: timedelta,
        warn: Callable[[str], None] | None = None,
    ) -> None:
        self._places = places
        self._store = places.store
        self._run = run
        self._resume_within = resume_within
        self.log, self.warn = log.info, warn or log.warning

    def page_store(self, clock: Callable[[], datetime]) -> PageStore:
        return PageStore(
            self._store,
            self._places.saved_pages,
            scope=self._places.own,
            resume_within=self._resume_within,
            clock=clock,
        )

    def latest(self) -> pl.LazyFrame | None:
        key = self._places.latest()
        return self._store.scan(key) if key else None

    def latest_metadata(self) -> Mapping[str, str]:
        try:
            key = self._places.latest()
            return self._store.metadata(key) if key else {}
        except OctogenSnapshotError:  # the publication warns of it
            return {}

    def version(self) -> object:
        return self._store.version(self._places.own)

    def publish(self, source: SnapshotSource, stop: threading.Event) -> Published:
        """Read a source and publish its rows. `stop` ends the reading from another thread."""
        with source.reading(self, stop) as reading:
            metadata = self._publish(reading, stop)

        def remove_pages() -> None:
            try:
                reading.published()
            except Exception as error:  # of any kind, as in an object store: the snapshot is whole
                self.warn(f"Saved pages could not be removed. {error}")

        return Published(metadata, remove_pages)

    def _publish(self, reading: Reading, stop: threading.Event) -> Metadata:
        store, places, limits = self._store, self._places, reading.limits
        key = places.own
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
                latest = key if store.exists(key) else places.latest()
                facts = existing if latest == key else self._existing(latest)
                check_not_shrunken(limits, rows, _row_count(store, latest, facts), uri)
            row_count = "row_count" if places.partition is None else "partition_row_count"
            metadata: Metadata = {
                f"dagster/{row_count}": rows,
                "dagster/uri": uri,
                "octogen/file_size_bytes": unfinished.stat().st_size,
            }
            keep_previous = None
            if limits.keeps_previous and not places.has_times:
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
        file_metadata = {"octogen.asset_key": self._places.asset.to_user_string()}
        if self._run.run_id is not None:
            file_metadata[_RUN_ID] = self._run.run_id
        if self._places.partition is not None:
            file_metadata["octogen.partition_key"] = self._places.partition
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
        instance = self._run.instance
        if instance is None or run_id is None or not instance.has_run(run_id):
            return True
        # By the partition: the log of a run of many would be read as a whole for each of them.
        partition = self._places.partition
        only = None if partition is None else [partition]
        filters = dg.AssetRecordsFilter(self._places.asset, asset_partitions=only)
        records = instance.fetch_materializations(filters, limit=_LAST_REPORTS).records
        return any(record.run_id == run_id for record in records)


def reported_before(run: PublishingStep, asset: dg.AssetKey) -> dict[str, dg.AssetMaterialization]:
    """What a step need not publish again: what the run and those that it retries have reported."""
    logged: dict[str, dg.EventLogEntry] = {}
    for entry in _logged_before(run, dg.DagsterEventType.ASSET_MATERIALIZATION):
        event = entry.asset_materialization
        if event and event.asset_key == asset and event.partition is not None:
            logged.setdefault(event.partition, entry)
    # A process that is killed may have written the run's log, and not what the asset's page shows.
    return {
        partition: record.asset_materialization
        for partition, record in last_records(run.instance, asset, list(logged)).items()
        if record.asset_materialization is not None
        if record.timestamp >= logged[partition].timestamp
    }


def evaluated_before(run: PublishingStep, asset: dg.AssetKey) -> Mapping[str, Collection[str]]:
    """The checks of each partition that the run and those that it retries have evaluated."""
    found = defaultdict[str, set[str]](set)
    for entry in _logged_before(run, dg.DagsterEventType.ASSET_CHECK_EVALUATION):
        evaluation = entry.asset_check_evaluation
        if evaluation and evaluation.asset_key == asset and evaluation.partition is not None:
            found[evaluation.partition].add(evaluation.check_name)
    return found


def last_records(
    instance: dg.DagsterInstance | None, asset: dg.AssetKey, partitions: Sequence[str]
) -> dict[str, dg.EventLogRecord]:
    """The records of the last materializations of partitions, without those that have none."""
    assert instance is not None
    kind, found = dg.DagsterEventType.ASSET_MATERIALIZATION, dict[str, dg.EventLogRecord]()
    for first in range(0, len(partitions), _RECORDS_AT_ONCE):
        some = set(partitions[first : first + _RECORDS_AT_ONCE])
        latest = instance.get_latest_storage_id_by_partition(asset, kind, some)
        if not latest:
            continue
        filters = dg.AssetRecordsFilter(asset, storage_ids=list(latest.values()))
        for record in instance.fetch_materializations(filters, limit=len(latest)).records:
            if record.partition_key is not None:
                found[record.partition_key] = record
    return found


def _logged_before(run: PublishingStep, kind: dg.DagsterEventType) -> Iterator[dg.EventLogEntry]:
    """The events of a kind of the run and of those that it retries, the latest run first.

    A run that succeeded is not retried: whoever executes it again wants it all anew.
    """
    instance, run_id = run.instance, run.run_id
    assert instance is not None
    while run_id is not None:
        made = instance.get_run_by_id(run_id)
        if made is None or made.status is dg.DagsterRunStatus.SUCCESS:
            break
        yield from instance.all_logs(run_id, of_type=kind)
        run_id = made.parent_run_id


def materialization(
    asset: dg.AssetKey,
    partition: str,
    metadata: Mapping[str, Any],
    run_id: str | None,
    version: str | None = None,
) -> dg.AssetMaterialization:
    """The materialization of one partition of a run that has several.

    Its data version is that of the catalog, or else one that no other run has.
    """
    tags = {"dagster/data_version": version or run_id or ""}
    if version:
        tags["dagster/data_version_is_user_provided"] = "true"
    if isinstance(partition, dg.MultiPartitionKey):
        keys = partition.keys_by_dimension.items()
        tags |= {f"dagster/partition/{name}": key for name, key in keys}
    return dg.AssetMaterialization(asset, partition=partition, metadata=metadata, tags=tags)


def snapshot_source(asset: dg.AssetKey, made: Any) -> SnapshotSource:
    """What an asset returned, as something that can be published."""
    subject = f"Asset {asset.to_user_string()}"
    if isinstance(made, pl.DataFrame | pl.LazyFrame):
        return FrameSource(made.lazy())
    if _is_frame(made, "pandas", "DataFrame"):
        return FrameSource(_from_pandas(made, subject).lazy())
    if _is_frame(made, "pyarrow", "Table"):
        return FrameSource(pl.DataFrame(made).lazy())
    if hasattr(made, "reading"):
        source: SnapshotSource = made
        return source
    if made is None:
        raise TypeError(
            f"{subject} returned nothing, so there is nothing to store. If it stores its result "
            "itself, annotate it `-> None`: Dagster then calls no IO manager. If not, return "
            f"{RETURNED}."
        )
    raise TypeError(
        f"{subject} returned {type(made).__name__}, which cannot be stored as a snapshot. Return "
        f"{RETURNED}."
    )


def _is_frame(made: Any, module: str, name: str) -> bool:
    """True for an instance of a class of a package that need not be installed."""
    return module in sys.modules and isinstance(made, getattr(sys.modules[module], name))


def _from_pandas(made: Any, subject: str) -> pl.DataFrame:
    """A frame of pandas, with its index as columns if that has a name, as after `groupby`."""
    try:
        importlib.import_module("pyarrow")
    except ImportError as error:
        raise MissingPackageError(
            f"{subject} returned a pandas.DataFrame, which cannot be stored without pyarrow: pip "
            "install pyarrow"
        ) from error
    has_names = any(name is not None for name in made.index.names)
    return pl.from_pandas(made, include_index=has_names)


def _row_count(store: Store, key: str | None, file_metadata: Mapping[str, str]) -> int:
    """Return the number of rows of a snapshot; 0 without a usable one."""
    if key is None or not file_metadata:
        return 0
    rows = file_metadata.get(ROWS)  # earlier versions do not write it
    return store.count_rows(key) if rows is None else int(rows)


def each_at_once(
    work: Callable[[str], _Result],
    waiting: deque[str],
    *,
    threads: int,
    stop: threading.Event,
    poll: Callable[[], object],
) -> Iterator[tuple[str, Future[_Result]]]:
    """Work on partitions in some threads, and yield each with what came of it, as it is done.

    A further one is begun when the caller is through with one, so that as many are under way. The
    caller may clear those that wait: the others end. `poll` is called meanwhile. If the caller
    leaves, the work under way is stopped.
    """
    running = dict[Future[_Result], str]()
    try:
        while waiting or running:
            while waiting and len(running) < threads:
                partition = waiting.popleft()
                future = submit(functools.partial(work, partition), "octogen-partition")
                running[future] = partition
            done, _ = wait(running, _POLL_SECONDS, FIRST_COMPLETED)
            poll()
            for future in done:
                yield running.pop(future), future
    finally:
        stop.set()
        for future in running:
            wait_interruptibly(future)


class Failures:
    """The partitions of a run that failed. Of their errors it keeps no more than the texts.

    `end` says why those that wait are not to be tried: an error that concerns them all.
    """

    def __init__(self, asset: dg.AssetKey, log: dg.DagsterLogManager) -> None:
        self._asset = asset
        self._log = log
        self._texts: dict[str, str] = {}
        self._permanent: dict[str, str] = {}
        self._unchecked: dict[str, str] = {}
        self._metadata: Mapping[str, Any] = {}
        self._in_a_row = 0
        self._may_pass = self._is_of_all = False
        self.end = ""

    def recall(self, run: PublishingStep) -> None:
        """Add the partitions that an earlier attempt of the step found to fail for good."""
        assert run.instance
        assert run.run_id
        kind = dg.DagsterEventType.ASSET_OBSERVATION
        for entry in run.instance.all_logs(run.run_id, of_type=kind):
            event = entry.asset_observation
            if event is None or event.asset_key != self._asset or event.partition is None:
                continue
            if text := event.metadata.get(_FAILED):
                self._texts[event.partition] = str(text.value)

    def observations(self) -> Iterator[dg.AssetObservation]:
        """What tells the next attempt of the step, if there is one, what failed for good."""
        if self._may_be_retried:
            for partition, text in self._permanent.items():
                metadata = {_FAILED: text}
                yield dg.AssetObservation(self._asset, partition=partition, metadata=metadata)

    def add(self, partition: str, error: Exception) -> None:
        self._texts[partition] = text = self._logged(partition, error)
        if isinstance(error, dg.Failure) and not error.allow_retries:
            self._permanent[partition] = text
            self._in_a_row = 0
            if isinstance(error.__cause__, _FATAL_ERRORS):
                self._is_of_all = True
                self._metadata = error.metadata
                self.end = "they would fail by the same error"
            return
        self._may_pass = True
        self._in_a_row += 1
        if self._in_a_row >= _MAX_IN_A_ROW and not self.end:
            self.end = f"{self._in_a_row} in a row failed by errors that may pass"

    def add_unchecked(self, partition: str, error: Exception) -> None:
        """Add a partition that is published and reported, and whose checks raised an error."""
        self._unchecked[partition] = self._logged(partition, error)
        self._may_pass = True

    def passed(self) -> None:
        """Note that a partition was published."""
        self._in_a_row = 0

    def _logged(self, partition: str, error: Exception) -> str:
        text = (isinstance(error, dg.Failure) and error.description) or str(error)
        is_expected = isinstance(error, OctogenError | dg.Failure)
        self._log.error(f"Partition {partition!r}: {text}", exc_info=None if is_expected else error)
        return text if is_expected else f"{type(error).__name__}: {text}"

    @property
    def _may_be_retried(self) -> bool:
        return self._may_pass and not self._is_of_all

    def __contains__(self, partition: str) -> bool:
        return partition in self._texts

    def __bool__(self) -> bool:
        return bool(self._texts)

    def raise_any(self, partitions: int, untried: Sequence[str] = ()) -> None:
        """Fail the run if partitions of it failed; it is retried if an error may pass."""
        if not self._texts and not self._unchecked:
            return
        asset = self._asset.to_user_string()
        lines = []
        if self._texts:
            others = partitions - len(self._texts) - len(untried)
            lines = [
                f"{len(self._texts):,} of {partitions:,} partitions of {asset} failed. "
                f"{f'{len(untried):,} were not read, since {self.end}. ' if untried else ''}"
                f"{f'The other {others:,} are published and reported. ' if others else ''}"
                "A retry or a re-execution of this run reads only those that failed"
                f"{' or were not read' if untried else ''}.",
                *_named([f"{key!r}: {text}" for key, text in self._texts.items()]),
            ]
        if untried:
            lines += ["Not read:", *_named([repr(key) for key in untried])]
        if self._unchecked:
            lines += [
                f"The checks of {len(self._unchecked):,} of {partitions:,} partitions of {asset} "
                "could not be evaluated. The snapshots are published and reported. A retry or a "
                "re-execution of this run evaluates the checks.",
                *_named([f"{key!r}: {text}" for key, text in self._unchecked.items()]),
            ]
        raise dg.Failure(
            "\n".join(lines), metadata=self._metadata, allow_retries=self._may_be_retried
        )


def _named(lines: Sequence[str]) -> list[str]:
    more = len(lines) - _MAX_NAMED
    return [*lines[:_MAX_NAMED], *([f"and {more:,} more."] if more > 0 else [])]
