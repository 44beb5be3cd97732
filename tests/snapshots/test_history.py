"""Snapshots of days: today's is read from the service, others are rebuilt from archived pages."""

import functools
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest

from octogen_dagster import (
    OctogenResource,
    ParquetSnapshotIOManager,
    ProductSearch,
    build_catalog_sensor,
    build_products_asset,
    catalog_days,
    snapshot_days,
)
from octogen_dagster.sandbox.server import Sandbox
from octogen_dagster.snapshots.assets import ProductsAsset
from octogen_dagster.snapshots.catalog_sensor import CatalogSensor
from octogen_dagster.snapshots.snapshot_files import SnapshotFile
from tests import results
from tests.results import failure

metadata = functools.partial(results.metadata, node="products")

START = f"{datetime.now(timezone.utc) - timedelta(days=3):%Y-%m-%d}"


def day(offset: int = 0) -> str:
    return f"{datetime.now(timezone.utc) + timedelta(days=offset):%Y-%m-%d}"


@pytest.fixture
def run(
    tmp_path: Path, octogen: OctogenResource, instance: dg.DagsterInstance
) -> Callable[..., dg.ExecuteInProcessResult]:
    def materialize(asset: dg.AssetsDefinition, key: str, **io_manager: Any) -> Any:
        return dg.materialize(
            [asset],
            partition_key=key,
            instance=instance,
            raise_on_error=False,
            resources={
                "octogen": octogen,
                "io_manager": ParquetSnapshotIOManager(base_dir=str(tmp_path), **io_manager),
            },
        )

    return materialize


class Clock:
    """A clock that can be some days ahead."""

    days = 0

    def __call__(self) -> datetime:
        return datetime.now(timezone.utc) + timedelta(days=self.days)


@pytest.fixture
def clock() -> Clock:
    return Clock()


def products_asset(
    clock: Clock, partitions_def: dg.PartitionsDefinition[str], search: ProductSearch | None = None
) -> dg.AssetsDefinition:
    return ProductsAsset(
        "products", search or ProductSearch(), partitions_def, clock=clock
    ).definition(retry_policy=None)


def test_today_is_read_from_the_service(
    run: Callable[..., Any], tmp_path: Path, shops: Sandbox
) -> None:
    products = build_products_asset("products", partitions_def=snapshot_days(START))
    found = metadata(run(products, day()))
    assert found["octogen/source"] == "service"
    assert found["dagster/partition_row_count"] == 350
    assert pl.read_parquet(tmp_path / f"products/{day()}.parquet").height == 350


def test_a_past_day_is_refused_and_not_retried(run: Callable[..., Any], tmp_path: Path) -> None:
    products = build_products_asset(
        "products",
        partitions_def=snapshot_days(START),
        retry_policy=dg.RetryPolicy(max_retries=3),
    )
    result = run(products, day(-2), keep_pages=True)
    assert not result.success
    assert f"The partition from {day(-2)} 00:00 to {day(-1)} 00:00 UTC is over" in failure(result)
    assert not [event for event in result.all_events if event.is_step_up_for_retry]
    assert not list(tmp_path.rglob("*.parquet"))


def test_a_day_that_was_archived_is_rebuilt_without_the_service(
    run: Callable[..., Any], tmp_path: Path, shops: Sandbox, clock: Clock
) -> None:
    key = day()
    products = products_asset(clock, snapshot_days(START), ProductSearch(page_size=10))
    assert run(products, key, keep_pages=True).success
    path = tmp_path / f"products/{key}.parquet"
    captured = pl.read_parquet(path)
    path.unlink()
    shops.revoke("strada")
    requests = len(shops.requests)
    clock.days = 1

    found = metadata(run(products, key))

    assert found["octogen/source"] == "archived pages"
    assert (found["octogen/resumed_pages"], found["octogen/requests"]) == (35, 0)
    assert len(shops.requests) == requests
    assert pl.read_parquet(path).sort("uuid").equals(captured.sort("uuid"))


@pytest.mark.parametrize("scheme", ["file://", "local://"])
def test_pages_are_also_archived_in_a_folder_named_by_a_url(
    tmp_path: Path,
    octogen: OctogenResource,
    instance: dg.DagsterInstance,
    clock: Clock,
    scheme: str,
) -> None:
    products = products_asset(clock, snapshot_days(START), ProductSearch(page_size=10))
    key, sources = day(), []
    for _ in range(2):
        result = dg.materialize(
            [products],
            partition_key=key,
            instance=instance,
            resources={
                "octogen": octogen,
                "io_manager": ParquetSnapshotIOManager(
                    base_dir=f"{scheme}{tmp_path}", keep_pages=True
                ),
            },
        )
        sources.append(metadata(result)["octogen/source"])
        clock.days = 1
    assert sources == ["service", "archived pages"]


def test_a_day_is_rebuilt_with_the_archived_search_and_the_log_says_so(
    run: Callable[..., Any], shops: Sandbox, clock: Clock, capfd: Any
) -> None:
    days = snapshot_days(START)
    captured = ProductSearch(catalogs=["strada"])
    assert run(products_asset(clock, days, captured), day(), keep_pages=True).success
    clock.days = 1
    for search, says in (
        (captured.model_copy(update={"page_size": 7}), False),
        (ProductSearch(q="boots"), True),
    ):
        capfd.readouterr()
        found = metadata(run(products_asset(clock, days, search), day()))
        assert found["dagster/partition_row_count"] == 120
        assert found["octogen/search"]["catalogs"] == ["strada"]
        said = "The archived pages are of another search than the present one: ProductSearch("
        assert (said in capfd.readouterr().err) is says


def test_a_day_whose_run_died_before_publication_can_be_rebuilt(
    run: Callable[..., Any],
    tmp_path: Path,
    shops: Sandbox,
    monkeypatch: pytest.MonkeyPatch,
    clock: Clock,
) -> None:
    products = products_asset(clock, snapshot_days(START))
    assert run(products, day(), keep_pages=True).success
    shops.grant("strada", products=125)

    def die(*_: object, **__: object) -> None:
        raise OSError("a machine went away")

    with monkeypatch.context() as broken:
        broken.setattr(SnapshotFile, "publish", die)
        assert not run(products, day(), keep_pages=True).success
    clock.days = 1
    assert metadata(run(products, day()))["dagster/partition_row_count"] == 355


def test_archived_pages_do_not_replace_a_newer_snapshot(
    run: Callable[..., Any], tmp_path: Path, shops: Sandbox, clock: Clock
) -> None:
    products = products_asset(clock, snapshot_days(START))
    assert run(products, day(), keep_pages=True).success
    shops.grant("strada", products=125)
    assert run(products, day(), keep_pages=False).success
    clock.days = 1
    assert "so newer data would be lost. Nothing was changed" in failure(run(products, day()))
    assert pl.read_parquet(tmp_path / f"products/{day()}.parquet").height == 355


def test_a_catalog_and_a_day(
    run: Callable[..., Any],
    tmp_path: Path,
    shops: Sandbox,
    instance: dg.DagsterInstance,
    clock: Clock,
) -> None:
    key = day()
    instance.add_dynamic_partitions("octogen_catalogs", ["northpeak", "strada"])
    products = products_asset(clock, catalog_days(START))
    for catalog, rows in (("northpeak", 230), ("strada", 120)):
        found = metadata(run(products, f"{catalog}|{key}", keep_pages=True))
        assert found["dagster/partition_row_count"] == rows
        assert pl.read_parquet(tmp_path / f"products/{catalog}/{key}.parquet").height == rows
    assert not run(products, f"northpeak|{day(-1)}", keep_pages=True).success

    clock.days = 1
    assert metadata(run(products, f"strada|{key}"))["octogen/source"] == "archived pages"


def test_archived_pages_are_beside_the_snapshot_in_a_hidden_folder(
    run: Callable[..., Any], tmp_path: Path
) -> None:
    products = build_products_asset("products", partitions_def=snapshot_days(START))
    run(products, day(), keep_pages=True)
    assert [path.name for path in (tmp_path / "products").glob("*.parquet")] == [f"{day()}.parquet"]
    folder = tmp_path / f"products/.{day()}.pages"
    kept = sorted(path.name for path in folder.rglob("*") if path.is_file())
    assert {"archive.json", "read.json"} < set(kept)
    assert len(kept) == 4  # and a segment for each catalog


def test_partitions_without_the_present_are_refused_at_once() -> None:
    with pytest.raises(ValueError, match=r"'products': its time partitions .* Set end_offset=1"):
        build_products_asset("products", partitions_def=dg.DailyPartitionsDefinition(START))


def test_two_dimensions_other_than_a_catalog_and_a_time_are_refused() -> None:
    letters = dg.StaticPartitionsDefinition(["a"])
    two = dg.MultiPartitionsDefinition({"one": letters, "two": letters})
    with pytest.raises(ValueError, match="must be a catalog and a time"):
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


def test_a_run_that_was_requested_too_late_in_its_day_is_requested_for_the_next(
    octogen: OctogenResource, instance: dg.DagsterInstance
) -> None:
    products = build_products_asset("products", partitions_def=catalog_days(START))
    now = datetime.now(timezone.utc)
    sensor = CatalogSensor(products, clock=lambda: now).definition()

    def asked(cursor: str | None) -> tuple[list[tuple[str, str]], str]:
        context = dg.build_sensor_context(
            instance=instance, cursor=cursor, resources={"octogen": octogen}
        )
        result: Any = sensor(context)
        requests = [(request.partition_key, request.run_key) for request in result.run_requests]
        return requests, result.cursor

    ((_, first), (strada, second)), cursor = asked(None)
    for partition in (f"northpeak|{day()}", f"strada|{day(-1)}", "of other partitions"):
        instance.report_runless_asset_event(
            dg.AssetMaterialization(products.key, partition=partition)
        )
    now += timedelta(days=1)
    assert first.startswith("northpeak@")
    assert strada == f"strada|{day()}"
    assert asked(cursor)[0] == [(f"strada|{day(1)}", f"{second}#2")]
