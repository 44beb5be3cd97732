"""Schedules: what a tick requests, and what follows downstream."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.definitions.schedule_definition import ScheduleExecutionData

import octogen_dagster as od
from tests.messages import Golden


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    """An instance on disk: a schedule's context makes its own from a reference to it."""
    with dg.DagsterInstance.local_temp(str(tmp_path)) as stored:
        yield stored


NOON = datetime(2026, 3, 4, 12, tzinfo=UTC)


def snapshot_schedule(
    products: dg.AssetsDefinition, cron_schedule: str = "@daily"
) -> dg.ScheduleDefinition:
    """A schedule whose clock stands at noon."""
    return od.build_snapshot_schedule(
        products, cron_schedule, name="snapshots", _clock=lambda: NOON
    )


OCTOGEN = od.OctogenResource(catalog_source=od.GrantedCatalogs())


def tick(
    schedule: dg.ScheduleDefinition,
    instance: dg.DagsterInstance,
    *assets: dg.AssetsDefinition,
    at: datetime = NOON,
) -> ScheduleExecutionData:
    """Evaluate a tick that was scheduled for a time."""
    repository = dg.Definitions(
        assets=assets, schedules=[schedule], resources={"octogen": OCTOGEN}
    ).get_repository_def()
    context = dg.build_schedule_context(
        instance=instance, scheduled_execution_time=at, repository_def=repository
    )
    return schedule.evaluate_tick(context)


def test_a_search_is_requested_once_a_tick(instance: dg.DagsterInstance) -> None:
    boots = od.build_products_asset("boots", od.ProductSearch(q="boots"))
    schedule = od.build_snapshot_schedule(boots, "0 6 * * *", execution_timezone="Europe/Berlin")

    assert schedule.name == "boots_schedule"
    assert (schedule.cron_schedule, schedule.execution_timezone) == ("0 6 * * *", "Europe/Berlin")
    (request,) = tick(schedule, instance, boots).run_requests or ()
    assert request.partition_key is None


def test_every_catalog_is_requested_with_a_key_of_its_own(instance: dg.DagsterInstance) -> None:
    instance.add_dynamic_partitions("octogen_catalogs", ["northpeak", "strada"])
    products = od.build_products_asset("products", partitions_def=od.catalog_partitions)
    schedule = od.build_snapshot_schedule(products, "@daily", execution_timezone="Europe/Berlin")
    assert schedule.name == "products_schedule"
    assert (schedule.cron_schedule, schedule.execution_timezone) == ("@daily", "Europe/Berlin")
    requests = [
        request
        for day in (0, 1)
        for request in tick(
            schedule, instance, products, at=NOON + timedelta(days=day)
        ).run_requests
        or ()
    ]
    assert [request.partition_key for request in requests] == ["northpeak", "strada"] * 2
    assert len({request.run_key for request in requests}) == 4
    assert all(request.asset_selection == [products.key] for request in requests)


def test_a_tick_that_is_late_for_its_day_requests_no_run_that_would_be_refused(
    golden: Golden,
    instance: dg.DagsterInstance,
) -> None:
    products = od.build_products_asset("daily", partitions_def=od.snapshot_days("2026-01-01"))
    schedule = snapshot_schedule(products, "0 23 * * *")
    result = tick(schedule, instance, products, at=NOON - timedelta(hours=13))
    golden("skips", result.skip_message)


def test_without_catalogs_the_tick_says_what_to_do(
    golden: Golden, instance: dg.DagsterInstance
) -> None:
    products = od.build_products_asset("products", partitions_def=od.catalog_partitions)
    result = tick(snapshot_schedule(products), instance, products)
    golden("skips", result.skip_message or "")


def test_days_are_scheduled_for_the_day_of_the_tick(instance: dg.DagsterInstance) -> None:
    products = od.build_products_asset("daily", partitions_def=od.snapshot_days("2026-01-01"))
    requests = tick(snapshot_schedule(products), instance, products).run_requests
    assert [request.partition_key for request in requests or ()] == ["2026-03-04"]


def test_each_catalog_is_scheduled_for_the_day_of_the_tick(instance: dg.DagsterInstance) -> None:
    instance.add_dynamic_partitions("octogen_catalogs", ["northpeak", "strada"])
    products = od.build_products_asset("daily", partitions_def=od.catalog_days("2026-01-01"))
    requests = tick(snapshot_schedule(products), instance, products).run_requests
    keys = [request.partition_key for request in requests or ()]
    assert keys == ["northpeak|2026-03-04", "strada|2026-03-04"]


@pytest.mark.parametrize(
    ("most", "ranges"), [(2, [("a", "b"), ("c", "d"), ("e", "e")]), (None, [("a", "e")])]
)
@pytest.mark.parametrize("day", ["", "|2026-03-04"], ids=["catalogs", "days"])
def test_catalogs_are_scheduled_together_where_the_policy_of_the_asset_allows_it(
    instance: dg.DagsterInstance, most: int | None, ranges: list[tuple[str, str]], day: str
) -> None:
    instance.add_dynamic_partitions("octogen_catalogs", list("abcde"))
    policy = dg.BackfillPolicy.multi_run(most) if most else dg.BackfillPolicy.single_run()

    @dg.asset(
        partitions_def=od.catalog_days("2026-01-01") if day else od.catalog_partitions,
        backfill_policy=policy,
    )
    def products() -> None: ...

    requests = tick(snapshot_schedule(products), instance, products).run_requests or ()
    assert [partitions_of(request) for request in requests] == [
        (f"{first}{day}", f"{last}{day}") for first, last in ranges
    ]
    assert len({request.run_key for request in requests}) == len(ranges)


def partitions_of(request: dg.RunRequest) -> tuple[str | None, str | None]:
    """The first and the last partition that a request names."""
    of_range = request.partition_key_range
    if of_range is None:
        return request.partition_key, request.partition_key
    assert request.partition_key is None
    return of_range.start, of_range.end
