"""Snapshots of days: today's is read from the service, others are refused."""

import functools
import os
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg
import pytest

from octogen_dagster import (
    OctogenResource,
    ProductSearch,
    build_catalog_sensor,
    build_products_asset,
    catalog_days,
    snapshot_days,
)
from tests import results
from tests.projects import Project
from tests.results import failure, is_retried

metadata = functools.partial(results.metadata, node="products")

START = f"{datetime.now(UTC) - timedelta(days=3):%Y-%m-%d}"


def day(offset: int = 0) -> str:
    return f"{datetime.now(UTC) + timedelta(days=offset):%Y-%m-%d}"


class Clock:
    """A clock that can be some days ahead."""

    days = 0

    def __call__(self) -> datetime:
        return datetime.now(UTC) + timedelta(days=self.days)


@pytest.fixture
def clock() -> Clock:
    return Clock()


def products_asset(
    clock: Clock, partitions_def: dg.PartitionsDefinition[str], search: ProductSearch | None = None
) -> dg.AssetsDefinition:
    return build_products_asset("products", search, partitions_def, retry_policy=None, _clock=clock)


def test_today_is_read_from_the_service(project: Project) -> None:
    products = build_products_asset("products", partitions_def=snapshot_days(START))
    found = metadata(project.run([products], partition_key=day()))
    assert found["octogen/metrics"]["resumed_pages"] == 0
    assert found["dagster/partition_row_count"] == 350
    assert len(project.read("products", day())) == 350


def test_a_past_day_is_refused_and_not_retried(project: Project) -> None:
    products = build_products_asset(
        "products", partitions_def=snapshot_days(START), retry_policy=dg.RetryPolicy(max_retries=3)
    )
    result = project.run([products], partition_key=day(-2), raise_on_error=False)
    assert not result.success
    assert f"The partition from {day(-2)} 00:00 to {day(-1)} 00:00 UTC is over" in failure(result)
    assert not is_retried(result)
    assert not list(project.folder.rglob("*.parquet"))


@pytest.mark.slow
def test_a_catalog_and_a_day(project: Project, clock: Clock) -> None:
    key = day()
    project.instance.add_dynamic_partitions("octogen_catalogs", ["northpeak", "strada"])
    products = products_asset(clock, catalog_days(START))
    for catalog, rows in (("northpeak", 230), ("strada", 120)):
        found = metadata(project.run([products], partition_key=f"{catalog}|{key}"))
        assert found["dagster/partition_row_count"] == rows
        assert len(project.read(f"products/{catalog}", key)) == rows
    assert "is over" in project.failure([products], partition_key=f"northpeak|{day(-1)}")

    clock.days = 1
    assert "is over" in project.failure([products], partition_key=f"strada|{key}")
    assert len(project.read("products/strada", key)) == 120


def test_a_run_removes_what_killed_runs_of_other_days_and_catalogs_left(project: Project) -> None:
    project.instance.add_dynamic_partitions("octogen_catalogs", ["strada"])
    folder = project.folder / "products"
    half_written = {
        folder / "gone" / f".{day(-2)}.parquet.0123456789ab.unfinished": True,
        folder / "strada" / f".{day(-1)}.parquet.0123456789ab.unfinished": True,
        folder / "strada" / f".{day()}.parquet.0123456789ab.unfinished": True,
        folder
        / "gone"
        / f".{day(-1)}.parquet.0123456789ab.unfinished": False,  # it is being written
        folder / "strada" / ".notes": False,
    }
    for path in half_written:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        is_young = "gone" in path.parts and day(-1) in path.name
        os.utime(path, None if is_young else (0, 0))
    key = dg.MultiPartitionKey({"catalog": "strada", "day": day()})
    assert project.run([products_asset(Clock(), catalog_days(START))], partition_key=key).success
    assert [path for path in half_written if not path.exists()] == [
        path for path, goes in half_written.items() if goes
    ]


def test_partitions_without_the_present_are_refused_at_once() -> None:
    with pytest.raises(ValueError, match=r"'products' do not include .* Set end_offset=1"):
        build_products_asset("products", partitions_def=dg.DailyPartitionsDefinition(START))


def test_two_dimensions_other_than_a_catalog_and_a_time_are_refused() -> None:
    letters = dg.StaticPartitionsDefinition(["a"])
    two = dg.MultiPartitionsDefinition({"one": letters, "two": letters})
    with pytest.raises(
        ValueError, match=r"catalog and .*time dimension.* octogen_dagster\.catalog_days"
    ):
        build_products_asset("products", partitions_def=two)


def test_the_sensor_requests_a_catalogs_present_day(
    octogen: OctogenResource, instance: dg.DagsterInstance
) -> None:
    sensor = build_catalog_sensor(
        build_products_asset("products", partitions_def=catalog_days(START))
    )
    context = dg.build_sensor_context(instance=instance, resources={"octogen": octogen})
    result: Any = sensor(context)
    keys = [request.partition_key for request in result.run_requests]
    assert keys == [f"northpeak|{day()}", f"strada|{day()}"]
    assert result.dynamic_partitions_requests[0].partition_keys == ["northpeak", "strada"]
