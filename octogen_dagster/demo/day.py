"""A day of the demo: what its runs have to materialize, and what they did."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import dagster as dg

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping

UNFINISHED = [
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]
_POLL_SECONDS = 0.5
_MOST_EVENTS = 10_000

Target = tuple[dg.AssetKey, str | None]
"""An asset and its partition."""


@dataclass(slots=True)
class Day:
    """What was materialized on a day, and what was not.

    Attributes:
        materialized: The last event of each asset and partition that was materialized.
        missing: What was to be materialized and was not.
        failures: The reason of each failed run, by its partition or job.
        checks: The last result of each check of an asset or partition.
    """

    materialized: dict[Target, dg.EventLogRecord] = field(default_factory=dict)
    missing: set[Target] = field(default_factory=set)
    failures: dict[str, str] = field(default_factory=dict)
    checks: list[dg.AssetCheckEvaluation] = field(default_factory=list)

    def rows(self, target: Target) -> int | None:
        """The number of rows of a snapshot; None if it was not materialized."""
        for name in ("dagster/partition_row_count", "dagster/row_count"):
            if (rows := self.number(target, name)) is not None:
                return rows
        return None

    def number(self, target: Target, name: str) -> int | None:
        """A number in the metadata of a materialization; None if there is none."""
        value = self._metadata(target).get(name)
        return value.value if isinstance(value, dg.IntMetadataValue) else None

    def text(self, target: Target, name: str) -> str:
        """A text in the metadata of a materialization; empty if there is none."""
        value = self._metadata(target).get(name)
        return "" if value is None else str(value.value)

    def _metadata(self, target: Target) -> Mapping[str, dg.MetadataValue[Any]]:
        record = self.materialized.get(target)
        materialization = record and record.asset_materialization
        return materialization.metadata if materialization else {}


def wait_for_day(
    instance: dg.DagsterInstance,
    expected: Collection[Target],
    started_at: float,
    progress: Callable[[int], None],
    *,
    max_quiet_seconds: float = 60,
) -> Day:
    """Wait until everything that is expected was materialized.

    It also ends if no run is queued or under way for a while.

    Args:
        instance: The Dagster instance.
        expected: What sensors and automation conditions should materialize.
        started_at: The start of the day, in seconds since 1970.
        progress: Called with the number of what was materialized.
        max_quiet_seconds: The longest time without a run.
    """
    quiet_since = time.monotonic()
    while True:
        materialized = _materialized(instance, {key for key, _ in expected}, started_at)
        missing = set(expected) - materialized.keys()
        unfinished = instance.get_runs_count(dg.RunsFilter(statuses=UNFINISHED))
        progress(len(expected) - len(missing))
        if unfinished:
            quiet_since = time.monotonic()
        elif not missing or time.monotonic() - quiet_since > max_quiet_seconds:
            runs = _runs(instance, started_at)
            return Day(materialized, missing, _failures(instance, runs), _checks(instance, runs))
        time.sleep(_POLL_SECONDS)


def wait_for_tick(instance: dg.DagsterInstance, sensor: str, *, max_seconds: float = 120) -> bool:
    """Wait until a sensor was evaluated from the start of this call on.

    An automation condition that sees an asset and what it depends on change in one evaluation takes
    the asset for up to date.

    Args:
        instance: The Dagster instance.
        sensor: The sensor's name.
        max_seconds: The longest time to wait.

    Returns:
        True if it was evaluated.
    """
    started_at = time.time()
    while not (ticked := _has_ticked(instance, sensor, started_at)):
        if time.time() - started_at >= max_seconds:
            break
        time.sleep(_POLL_SECONDS)
    return ticked


def cancel_unfinished_runs(instance: dg.DagsterInstance) -> None:
    """Report runs as canceled whose processes ended with an earlier demo."""
    for run in instance.get_runs(dg.RunsFilter(statuses=UNFINISHED)):
        instance.report_run_canceled(run, message="The demo ended before this run.")


def _has_ticked(instance: dg.DagsterInstance, sensor: str, after: float) -> bool:
    return any(
        tick.is_completed and tick.timestamp >= after
        for state in instance.all_instigator_state()
        if state.instigator_name == sensor
        for tick in instance.get_ticks(state.instigator_origin_id, state.selector_id, limit=2)
    )


def _materialized(
    instance: dg.DagsterInstance, keys: Iterable[dg.AssetKey], after: float
) -> dict[Target, dg.EventLogRecord]:
    found: dict[Target, dg.EventLogRecord] = {}
    for key in keys:
        records = instance.fetch_materializations(
            dg.AssetRecordsFilter(key, after_timestamp=after), limit=_MOST_EVENTS, ascending=True
        ).records
        for record in records:
            found[key, record.partition_key] = record
    return found


def _runs(instance: dg.DagsterInstance, after: float) -> list[dg.DagsterRun]:
    return [
        record.dagster_run
        for record in instance.get_run_records()
        if record.create_timestamp.timestamp() >= after
    ]


def _failures(instance: dg.DagsterInstance, runs: Iterable[dg.DagsterRun]) -> dict[str, str]:
    failed = (dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED)
    return {_name(run): _reason(instance, run.run_id) for run in runs if run.status in failed}


def _name(run: dg.DagsterRun) -> str:
    assets = ", ".join(sorted(key.to_user_string() for key in run.asset_selection or ()))
    return run.tags.get("dagster/partition") or assets or run.job_name


def _checks(
    instance: dg.DagsterInstance, runs: Iterable[dg.DagsterRun]
) -> list[dg.AssetCheckEvaluation]:
    entries = sorted(
        (
            entry
            for run in runs
            for entry in instance.all_logs(
                run.run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION
            )
        ),
        key=lambda entry: entry.timestamp,
    )
    results = [e.dagster_event.asset_check_evaluation_data for e in entries if e.dagster_event]
    return list({(r.asset_key, r.check_name, r.partition): r for r in results}.values())


def _reason(instance: dg.DagsterInstance, run_id: str) -> str:
    """Return why a run failed."""
    for entry in instance.all_logs(run_id, of_type=dg.DagsterEventType.STEP_FAILURE):
        event = entry.dagster_event
        if event and event.step_failure_data.error:
            error = event.step_failure_data.error
            name, _, message = (error.cause or error).message.strip().partition(": ")
            return message or name
    return "see the run in the Dagster UI"
