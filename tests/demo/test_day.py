"""A day ends when everything was materialized, or when nothing happens any more."""

import time

import dagster as dg
import pytest
from dagster._core.definitions.run_request import InstigatorType
from dagster._core.remote_origin import RemoteInstigatorOrigin
from dagster._core.scheduler.instigation import (
    InstigatorState,
    InstigatorStatus,
    TickData,
    TickStatus,
)

from octogen_dagster.demo.day import (
    Day,
    Target,
    cancel_unfinished_runs,
    wait_for_day,
    wait_for_tick,
)
from tests.runs import ORIGIN

PARTITIONS = dg.StaticPartitionsDefinition(["acme", "zen"])


@dg.asset(partitions_def=PARTITIONS)
def products(context: dg.AssetExecutionContext) -> dg.MaterializeResult[None]:
    if context.partition_key == "zen":
        raise dg.Failure("Octogen is closed.", allow_retries=False)
    return dg.MaterializeResult(
        metadata={"dagster/partition_row_count": 40, "dagster/uri": "acme.parquet"}
    )


@dg.asset_check(asset=products)
def prices() -> dg.AssetCheckResult:
    return dg.AssetCheckResult(passed=False, description="A price is wrong.")


ACME: Target = (products.key, "acme")
ZEN: Target = (products.key, "zen")


def materialize(instance: dg.DagsterInstance, partition: str) -> None:
    dg.materialize(
        [products, prices], instance=instance, partition_key=partition, raise_on_error=False
    )


def wait(instance: dg.DagsterInstance, *expected: Target, started_at: float = 0.0) -> Day:
    return wait_for_day(instance, expected, started_at, lambda _: None, max_quiet_seconds=0)


def test_a_day_has_what_was_materialized_with_its_numbers_and_checks(
    instance: dg.DagsterInstance,
) -> None:
    materialize(instance, "acme")
    day = wait(instance, ACME)
    assert (day.missing, day.failures) == (set(), {})
    assert day.rows(ACME) == 40
    assert day.text(ACME, "dagster/uri") == "acme.parquet"
    assert day.number(ACME, "octogen/changed") is None
    (check,) = day.checks
    assert (check.passed, check.description) == (False, "A price is wrong.")


def test_a_day_names_what_failed_and_what_is_missing(instance: dg.DagsterInstance) -> None:
    materialize(instance, "acme")
    materialize(instance, "zen")
    day = wait(instance, ACME, ZEN)
    assert day.missing == {ZEN}
    assert day.rows(ZEN) is None
    assert day.failures == {"zen": "Octogen is closed."}


def test_a_day_counts_nothing_of_the_day_before(instance: dg.DagsterInstance) -> None:
    materialize(instance, "acme")
    materialize(instance, "zen")
    assert wait(instance, ACME, started_at=time.time()) == Day(missing={ACME})


def test_a_day_goes_on_while_a_run_is_queued(instance: dg.DagsterInstance) -> None:
    job = dg.define_asset_job("job", [products]).resolve(
        asset_graph=dg.Definitions([products]).resolve_asset_graph()
    )
    queued = instance.create_run_for_job(
        job, remote_job_origin=ORIGIN, status=dg.DagsterRunStatus.QUEUED
    )
    polls = []

    def progress(done: int) -> None:
        polls.append(done)
        if len(polls) == 2:
            instance.delete_run(queued.run_id)
            materialize(instance, "acme")

    day = wait_for_day(instance, [ACME], 0.0, progress, max_quiet_seconds=0)
    assert day.missing == set()
    assert polls == [0, 0, 1]


@pytest.mark.parametrize("status", [dg.DagsterRunStatus.QUEUED, dg.DagsterRunStatus.STARTED])
def test_runs_of_an_earlier_demo_are_canceled(
    instance: dg.DagsterInstance, status: dg.DagsterRunStatus
) -> None:
    job = dg.define_asset_job("job", [products]).resolve(
        asset_graph=dg.Definitions([products]).resolve_asset_graph()
    )
    left = instance.create_run_for_job(job, remote_job_origin=ORIGIN, status=status)
    cancel_unfinished_runs(instance)
    run = instance.get_run_by_id(left.run_id)
    assert run is not None
    assert run.status is dg.DagsterRunStatus.CANCELED


def test_an_evaluation_of_a_sensor_that_begins_after_the_call_is_waited_for() -> None:
    with dg.instance_for_test() as instance:  # it stores ticks

        def tick(sensor: str, status: TickStatus, seconds_later: float) -> bool:
            origin = RemoteInstigatorOrigin(ORIGIN.repository_origin, sensor)
            running = InstigatorStatus.RUNNING
            state = InstigatorState(origin, InstigatorType.SENSOR, running)
            if state not in instance.all_instigator_state():
                instance.add_instigator_state(state)
            instance.create_tick(
                TickData(
                    instigator_origin_id=state.instigator_origin_id,
                    instigator_name=sensor,
                    instigator_type=InstigatorType.SENSOR,
                    status=status,
                    timestamp=time.time() + seconds_later,
                    selector_id=state.selector_id,
                )
            )
            return wait_for_tick(instance, "automation", max_seconds=0)

        assert not tick("automation", TickStatus.SKIPPED, -60)
        assert not tick("another", TickStatus.SKIPPED, 60)
        assert not tick("automation", TickStatus.STARTED, 60)
        assert tick("automation", TickStatus.SKIPPED, 60)
