"""Limits of a sensor's tick: how much it requests, when it retries, and which runs it waits for."""

from collections.abc import Collection, Sequence

import dagster as dg

MAX_RUNS_PER_TICK = 50
MAX_PARTITIONS_PER_TICK = 1_000
MAX_REPORTS_PER_TICK = 100
_FIRST_BACKOFF_SECONDS, _MAX_BACKOFF_SECONDS = 600, 6 * 3600

_UNFINISHED = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]


def backoff_seconds(attempts: int) -> int:
    """How long to wait for the result of a run before the next one is requested.

    Args:
        attempts: Runs requested so far; at least 1.
    """
    return int(min(_FIRST_BACKOFF_SECONDS * 2 ** (attempts - 1), _MAX_BACKOFF_SECONDS))


def is_due(next_at: int, now: int) -> bool:
    """True if the next request is due.

    A due time beyond the longest backoff counts as due, so a clock that jumped back cannot block
    it.

    Args:
        next_at: When the request is due, in seconds since 1970.
        now: Seconds since 1970.
    """
    return not now < next_at <= now + _MAX_BACKOFF_SECONDS


def limited(due: Sequence[str], known: Collection[str]) -> tuple[list[str], list[str]]:
    """Apply a tick's limits to the keys that are due.

    Args:
        due: Keys to request, the most urgent first.
        known: Keys that have a partition already.

    Returns:
        The keys to add a partition for, and the keys to request a run for. A key without a
        partition is not requested.
    """
    exists = set(known)  # Dagster returns a list, whose search for each key would take minutes
    new = [key for key in due if key not in exists][:MAX_PARTITIONS_PER_TICK]
    exists.update(new)
    return new, [key for key in due if key in exists][:MAX_RUNS_PER_TICK]


def unfinished_partitions(instance: dg.DagsterInstance, sensor_name: str) -> set[str]:
    """The partitions of a sensor's runs that are queued or running.

    Args:
        instance: The Dagster instance.
        sensor_name: The sensor that requested the runs.
    """
    runs = instance.get_runs(
        filters=dg.RunsFilter(tags={"dagster/sensor_name": sensor_name}, statuses=_UNFINISHED)
    )
    return {partition for run in runs if (partition := run.tags.get("dagster/partition"))}
