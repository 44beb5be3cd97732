"""What the ticks of all sensors are limited to."""

import dagster as dg
import pytest

from octogen_dagster.sensor_limits import backoff_seconds, is_due, limited, unfinished_partitions
from tests.runs import ORIGIN

HOUR = 3600


def test_waits_double_from_ten_minutes_to_six_hours() -> None:
    minutes = [backoff_seconds(attempts) // 60 for attempts in range(1, 9)]
    assert minutes == [10, 20, 40, 80, 160, 320, 360, 360]
    assert backoff_seconds(10_000) == 6 * HOUR


@pytest.mark.parametrize(
    ("next_at", "due"),
    [(0, True), (999, True), (1_000, True), (1_001, False), (1_000 + 6 * HOUR, False)],
)
def test_a_request_is_due_at_its_time(next_at: int, due: bool) -> None:
    assert is_due(next_at, now=1_000) is due


def test_a_due_time_beyond_the_longest_backoff_is_due() -> None:
    assert is_due(1_001 + 6 * HOUR, now=1_000)


def test_the_most_urgent_fifty_are_requested() -> None:
    due = [f"{number:02}" for number in range(60)]
    assert limited(due, due) == ([], due[:50])
    assert limited(due, ()) == (due, due[:50])
    assert limited([], {"a"}) == ([], [])


def test_what_gets_no_partition_is_not_requested() -> None:
    due = [f"{number:04}" for number in range(1_010)]
    known = {due[-1]}
    new, requested = limited(due, known)
    assert (new, requested) == (due[:1_000], due[:50])
    new, requested = limited([*due[:1_000], due[-1], *due[1_000:-1]], known)
    assert new == due[:1_000]
    assert due[1_000] not in requested


def test_known_partitions_are_requested_although_too_many_others_are_new() -> None:
    due = [*(f"{number:04}" for number in range(1_050)), "known"]
    new, requested = limited(due[-45:], {"known"})
    assert len(new) == 44
    assert requested == due[-45:]


def test_the_unfinished_partitions_are_those_of_the_sensor_s_runs(
    instance: dg.DagsterInstance,
) -> None:
    @dg.job
    def job() -> None: ...

    for status in dg.DagsterRunStatus:
        for sensor in ("mine", "other"):
            tags = {"dagster/sensor_name": sensor, "dagster/partition": f"{sensor} {status.value}"}
            instance.create_run_for_job(job, status=status, tags=tags, remote_job_origin=ORIGIN)
    instance.create_run_for_job(
        job, status=dg.DagsterRunStatus.STARTED, tags={"dagster/sensor_name": "mine"}
    )
    statuses = ("QUEUED", "NOT_STARTED", "STARTING", "STARTED", "CANCELING")
    assert unfinished_partitions(instance, "mine") == {f"mine {status}" for status in statuses}
