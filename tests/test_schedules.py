from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from octogen_dagster import (
    OctogenResource,
    ProductSearch,
    build_products_asset,
    build_snapshot_schedule,
    catalog_partitions,
)


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    """An instance on disk: a schedule's context makes its own from a reference to it."""
    with dg.DagsterInstance.local_temp(str(tmp_path)) as stored:
        yield stored


NOON = datetime(2026, 3, 4, 12, tzinfo=UTC)


def tick(
    schedule: dg.ScheduleDefinition, instance: dg.DagsterInstance, *assets: dg.AssetsDefinition
) -> Any:
    repository = dg.Definitions(
        assets=assets, schedules=[schedule], resources={"octogen": OctogenResource()}
    ).get_repository_def()
    context = dg.build_schedule_context(
        instance=instance, scheduled_execution_time=NOON, repository_def=repository
    )
    return schedule.evaluate_tick(context)


def test_a_search_is_requested_once_a_tick(instance: dg.DagsterInstance) -> None:
    boots = build_products_asset("boots", ProductSearch(q="boots"))
    schedule = build_snapshot_schedule(boots, "0 6 * * *", execution_timezone="Europe/Berlin")

    assert schedule.name == "boots_schedule"
    assert (schedule.cron_schedule, schedule.execution_timezone) == ("0 6 * * *", "Europe/Berlin")
    (request,) = tick(schedule, instance, boots).run_requests
    assert request.partition_key is None


def test_every_catalog_is_requested_with_a_key_of_its_own(instance: dg.DagsterInstance) -> None:
    instance.add_dynamic_partitions("octogen_catalogs", ["northpeak", "strada"])
    products = build_products_asset("products", partitions_def=catalog_partitions)
    requests = tick(build_snapshot_schedule(products, "@daily"), instance, products).run_requests

    assert [request.partition_key for request in requests] == ["northpeak", "strada"]
    assert len({request.run_key for request in requests}) == 2


def test_without_catalogs_the_tick_says_what_to_do(instance: dg.DagsterInstance) -> None:
    products = build_products_asset("products", partitions_def=catalog_partitions)
    result = tick(build_snapshot_schedule(products, "@daily"), instance, products)
    assert "turn the catalog sensor on" in (result.skip_message or "")


def test_partitions_of_time_have_schedules_of_their_own() -> None:
    days = dg.DailyPartitionsDefinition("2026-01-01")
    with pytest.raises(ValueError, match=r"use dagster\.build_schedule_from_partitioned_job"):
        build_snapshot_schedule(build_products_asset("daily", partitions_def=days), "@daily")
