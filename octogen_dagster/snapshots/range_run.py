"""Publishes and reports each partition separately in a run of several partitions.

    RangeRun.publish → each_at_once → in threads: the asset's function, Publication.publish
    → in the step's thread: report, remove the saved pages, evaluate the checks

With a `dagster.BackfillPolicy`, a run has a range of partitions. An `Output` would report either
all partitions or none, so the run yields a materialization for each published partition. The UI
shows the other partitions as failed, and a retry reads only these.
"""

from __future__ import annotations

import functools
import math
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, TypeVar

import dagster as dg
import polars as pl

from octogen_dagster.assets.definition import RANGE_END_TAG, RANGE_START_TAG
from octogen_dagster.background import submit, wait_interruptibly
from octogen_dagster.snapshots.budget import shared_budget
from octogen_dagster.snapshots.failures import Failures
from octogen_dagster.snapshots.metadata import COLUMN_SCHEMA
from octogen_dagster.snapshots.publication import reported_again
from octogen_dagster.snapshots.range_checks import RangeChecks

if TYPE_CHECKING:
    import threading
    from typing import Self

    from octogen_dagster.frames.source import RunSpending
    from octogen_dagster.snapshots.publication import PublishedSnapshot, PublishingStep

_Result = TypeVar("_Result")
_POLL_SECONDS = 0.2
_READ_AT_ONCE = 1.25
"""Ratio of the catalogs read in parallel to the concurrent requests.

The ratio is greater than 1, so that some pages are decoded while others are downloaded.
"""

Publish: TypeAlias = Callable[[str, Callable[[], None]], _Result]
"""A function `(partition, note_read)` that makes and publishes a partition.

The function calls `note_read` when all rows have been read.
"""

ReportedEvent: TypeAlias = dg.AssetMaterialization | dg.AssetCheckEvaluation | dg.AssetObservation


class RunService(Protocol):
    """The service from which a run reads its partitions."""

    @property
    def concurrency(self) -> int: ...

    @property
    def spending(self) -> RunSpending: ...

    def for_run(self, warn: Callable[[str], None], *, reads_several: bool) -> Self:
        """Return a copy of the service for this run. The copy passes warnings to `warn`."""


class RangeRun:
    """Keeps track of the reported, failed and remaining partitions in a run.

    Partitions that have not been tried yet come first, so that failing partitions cannot block
    them.
    """

    def __init__(self, step: PublishingStep, partitions: Sequence[str]) -> None:
        self.step = step
        self.partitions = partitions
        self.reported = step.reported_before()
        self.failures = Failures(step)
        left = (key for key in partitions if key not in self.reported and key not in self.failures)
        # False sorts before True, and the sort is stable.
        self._left = deque(sorted(left, key=self.failures.tried_before.__contains__))
        self._untried: list[str] = []
        if self.reported:
            step.log.info(
                f"{sum(key in self.reported for key in partitions):,} of {len(partitions):,} "
                "partitions are skipped because this run, or a run it retries, has already "
                "reported them."
            )

    def publish(
        self,
        publish: Publish[_Result],
        *,
        at_once: int,
        stop: threading.Event,
    ) -> Iterator[tuple[str, _Result]]:
        """Publish the remaining partitions and yield each with its result.

        The caller must report a result before it removes the partition's saved pages, so that a
        retry can resume an unreported partition from these pages. `publish` is called in threads.
        """
        for partition, future in each_at_once(publish, self._left, at_once=at_once, stop=stop):
            error = future.exception()
            if isinstance(error, Exception):
                self.failures.add(partition, error)
                if self.failures.end:
                    self._untried += self._left
                    self._left.clear()
                continue
            self.failures.passed()
            yield partition, future.result()

    def reported_by_others(self) -> Iterator[tuple[str, dg.AssetMaterialization]]:
        """Yield the materializations that were reported by an earlier run, not by this run.

        Dagster expects every run to report all its partitions. If this run fails, Dagster would
        show the earlier run's partitions as failed, although they are complete.
        """
        for partition in self.partitions:
            record = self.reported.get(partition)
            if record and record.run_id != self.step.run_id and (event := reported_again(record)):
                yield partition, event

    def end(self) -> Iterator[dg.AssetObservation]:
        """Record failures for the next attempt, and fail the run if any partition failed."""
        yield from self.failures.observations()
        self.failures.raise_any(len(self.partitions), self._untried)


def report_range(
    context: dg.AssetExecutionContext,
    step: PublishingStep,
    publish: Publish[PublishedSnapshot],
    stored: Callable[[str], pl.LazyFrame],
    *,
    service: RunService | None,
    stop: threading.Event,
) -> Iterator[ReportedEvent]:
    """Publish a run's remaining partitions and yield the events to report.

    `publish` makes and publishes a partition, and `stored` opens the published partition for its
    checks. If there is a service, partitions are read in parallel threads, otherwise one after
    another.
    """
    declared = context.assets_def.metadata_by_key[step.asset].get(COLUMN_SCHEMA)
    run = RangeRun(step, _partitions(context))
    checks = RangeChecks.of(context)

    def evaluations(
        partition: str, evaluated: Collection[str] = ()
    ) -> Iterator[dg.AssetCheckEvaluation]:
        snapshot = functools.partial(stored, partition)
        try:
            yield from checks.evaluations(snapshot, partition, evaluated)
        except Exception as error:
            run.failures.add_unchecked(partition, error)

    evaluated = step.evaluated_before() if run.reported else {}
    for partition in run.partitions:
        if partition in run.reported:
            yield from evaluations(partition, evaluated.get(partition, ()))
    with shared_budget(step, service.spending if service else None):
        for partition, published in run.publish(
            publish,
            at_once=math.floor(_READ_AT_ONCE * service.concurrency) if service else 1,
            stop=stop,
        ):
            metadata = dict(published.metadata)
            if metadata.get(COLUMN_SCHEMA) == declared:  # it would add 4 kB to each event
                del metadata[COLUMN_SCHEMA]
            yield from step.observations(partition, published.version)
            yield step.materialization(partition, metadata, published.version)
            published.remove_pages()
            yield from evaluations(partition)
        yield from checks.last_evaluations(context)
    if run.failures:
        for partition, event in run.reported_by_others():
            yield event
            yield from evaluations(partition)
    if checks.of_partitions or checks.of_asset:
        step.log.info(
            "This step evaluated the checks for each partition. Dagster skips the separate check "
            "steps, because a run of several partitions produces no output for these steps."
        )
    yield from run.end()


def _partitions(context: dg.AssetExecutionContext) -> Sequence[str]:
    """Return the partitions in a run's range. Fail if the first or last partition was deleted.

    If a partition was deleted and added again, Dagster moves the partition to the end. A range that
    ends with this partition is too long, and a range that begins with this partition is empty.
    """
    policy = context.assets_def.backfill_policy
    most = policy and policy.max_partitions_per_run
    problem = "the first or last partition was deleted while this run was queued"
    try:
        partitions: Sequence[str] = context.partition_keys
    except dg.DagsterInvalidInvocationError:
        partitions = ()
    else:
        if partitions and len(partitions) <= (most or len(partitions)):
            return partitions
        problem = (
            "the last partition was deleted and added again while this run was queued, so the "
            f"range now has {len(partitions):,} partitions instead of at most {most:,}"
            if partitions
            else "the first partition was deleted and added again while this run was queued, so "
            "the range is now empty"
        )
    tags = context.run.tags
    raise dg.Failure(
        f"{context.asset_key.to_user_string()} cannot read the partitions from "
        f"{tags.get(RANGE_START_TAG)!r} to {tags.get(RANGE_END_TAG)!r}: {problem}. Nothing was "
        "read. Materialize the remaining partitions again.",
        allow_retries=False,
    )


def each_at_once(
    work: Publish[_Result],
    waiting: deque[str],
    *,
    at_once: int,
    stop: threading.Event,
) -> Iterator[tuple[str, Future[_Result]]]:
    """Process partitions in threads. Yield each partition with its completed future.

    At most `at_once` partitions are read in parallel. The next partition starts as soon as another
    partition has been read, even before the other partition is published and reported. After an
    error, the next partition starts only when the caller has handled the error. To prevent further
    partitions from starting, the caller can clear `waiting`. If the caller stops iterating, the
    running work is stopped.
    """
    running = dict[Future[_Result], str]()
    reading = dict[str, Future[None]]()
    try:
        while waiting or running:
            # Removed before the next partition starts, but yielded afterwards: callers can be slow.
            done = next((each for each in running if each.done()), None)
            finished = None if done is None else (running.pop(done), done)
            reading = {key: read for key, read in reading.items() if not read.done()}
            # The number of partitions that are being published is limited as well.
            while waiting and len(reading) < at_once and len(running) < 2 * at_once:
                partition = waiting.popleft()
                reading[partition] = read = Future[None]()
                note_read = functools.partial(read.set_result, None)
                future = submit(functools.partial(work, partition, note_read), "octogen-partition")
                running[future] = partition
            if finished is None:
                under_way: list[Future[Any]] = [*running, *reading.values()]
                wait(under_way, _POLL_SECONDS, FIRST_COMPLETED)
                continue
            yield finished
            # A failed partition keeps its slot until the caller has handled the error.
            reading.pop(finished[0], None)
    finally:
        stop.set()
        for future in running:
            wait_interruptibly(future)
