"""What the ticks of all sensors keep to: how much they ask for, how soon again, and what runs."""

import dagster as dg

MAX_RUNS_PER_TICK = 50
MAX_PARTITIONS_PER_TICK = 1_000
MAX_REPORTS_PER_TICK = 100
_FIRST_WAIT_SECONDS, _MAX_WAIT_SECONDS = 600, 6 * 3600


def seconds_to_wait(tries: int) -> int:
    """How long after a request the same partition is requested again, if nothing came of it.

    Args:
        tries: Requests so far; 0 waits for nothing.
    """
    return min(_FIRST_WAIT_SECONDS * 2 ** (tries - 1), _MAX_WAIT_SECONDS) if tries else 0


def is_due(next_at: int, now: int) -> bool:
    """Whether the time of the next request has come, also after a clock that jumped went back.

    Args:
        next_at: When it is due, in seconds since 1970.
        now: Seconds since 1970.
    """
    return not now < next_at <= now + _MAX_WAIT_SECONDS


def unfinished_partitions(instance: dg.DagsterInstance, sensor_name: str) -> set[str]:
    """The partitions of a sensor's runs that are not finished."""
    runs = instance.get_runs(
        filters=dg.RunsFilter(
            tags={"dagster/sensor_name": sensor_name},
            statuses=[
                dg.DagsterRunStatus.QUEUED,
                dg.DagsterRunStatus.NOT_STARTED,
                dg.DagsterRunStatus.STARTING,
                dg.DagsterRunStatus.STARTED,
                dg.DagsterRunStatus.CANCELING,
            ],
        )
    )
    return {partition for run in runs if (partition := run.tags.get("dagster/partition"))}
