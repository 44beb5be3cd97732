"""The changes asset in Dagster: what it compares, also after a crash."""

import os
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.execution.context.system import StepExecutionContext

from octogen_dagster import (
    OctogenResource,
    ParquetSnapshotIOManager,
    ProductSearch,
    build_product_changes_asset,
    build_products_asset,
    catalog_days,
    snapshot_days,
)
from octogen_dagster.sandbox.server import Sandbox
from tests.projects import Project
from tests.results import metadata

COUNTS = ("appeared", "disappeared", "changed", "title_changed", "price_changed")


class Pipeline(Project):
    """Products and their changes, materialized together in one instance."""

    def __init__(
        self, base: Path, octogen: OctogenResource, instance: dg.DagsterInstance, **arguments: Any
    ) -> None:
        # A retry by default would wait for some seconds.
        self.products = build_products_asset("products", **{"retry_policy": None, **arguments})
        self.assets = [self.products, build_product_changes_asset(self.products)]
        super().__init__(base, instance, octogen)

    def shown(self, partition_key: str | None = None, config: Any = None) -> dict[str, Any]:
        """Materialize both assets; return the metadata of the changes."""
        run_config = {"ops": {"products": {"config": config or {}}}}
        result = self.run(self.assets, partition_key=partition_key, run_config=run_config)
        return metadata(result, "products_changes")


def counts(shown: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(shown[f"octogen/{name}"] for name in COUNTS)


@pytest.mark.slow
def test_an_unpartitioned_asset_is_compared_with_its_previous_snapshot(
    tmp_path: Path, octogen: OctogenResource, instance: dg.DagsterInstance, shops: Sandbox
) -> None:
    pipeline = Pipeline(
        tmp_path, octogen, instance, search=ProductSearch(catalogs=["strada"], page_size=50)
    )
    first = pipeline.shown()
    assert first["octogen/first_snapshot"] is True
    assert counts(first) == (120, 0, 0, 0, 0)
    assert first["dagster/row_count"] == 120
    columns = {column.name: column for column in first["dagster/column_schema"].columns}
    assert columns["old_title"].description == "`title` in the previous snapshot."
    assert pipeline.assets[1].op.pool is None  # it asks the service for nothing

    second = pipeline.shown()
    assert second["octogen/first_snapshot"] is False
    assert counts(second) == (0, 0, 0, 0, 0)

    shops.grant("strada", products=125)
    assert counts(pipeline.shown()) == (5, 0, 0, 0, 0)
    # The second of two snapshots is compared with the first, not with an earlier one.
    shops.grant("strada", products=110)
    assert counts(pipeline.shown()) == (0, 15, 0, 0, 0)


def test_a_catalog_that_vanished_is_named_and_its_products_did_not_disappear(
    tmp_path: Path,
    octogen: OctogenResource,
    instance: dg.DagsterInstance,
    shops: Sandbox,
    capfd: pytest.CaptureFixture[str],
) -> None:
    pipeline = Pipeline(tmp_path, octogen, instance)
    assert counts(pipeline.shown()) == (350, 0, 0, 0, 0)
    shops.revoke("strada")
    shops.grant("northpeak", products=228)
    shown = pipeline.shown()
    assert counts(shown) == (0, 2, 0, 0, 0)
    assert shown["octogen/vanished_catalogs"] == ["strada"]
    assert (
        "This snapshot lacks 1 catalog of the previous one: strada. Their products are not "
        "reported as disappeared. Ask Octogen whether the API key may still read them, or whether "
        "they were renamed."
    ) in capfd.readouterr().err


@pytest.mark.slow
def test_a_failed_read_does_not_become_the_previous_snapshot(
    tmp_path: Path, octogen: OctogenResource, instance: dg.DagsterInstance, shops: Sandbox
) -> None:
    pipeline = Pipeline(tmp_path, octogen, instance, search=ProductSearch(catalogs=["strada"]))
    pipeline.shown()
    shops.grant("strada", products=121)
    with pytest.raises(Exception, match="farfetch"):
        pipeline.shown(config={"catalogs": ["farfetch"]})
    assert counts(pipeline.shown()) == (1, 0, 0, 0, 0)


def dying(monkeypatch: pytest.MonkeyPatch, moment: str) -> None:
    """Make one run die after it published its snapshot and before it reported it."""
    failures = [OSError("a machine went away")]
    add_asset_metadata, replace = StepExecutionContext.add_asset_metadata, os.replace

    def when_it_was_published(
        context: StepExecutionContext, metadata: Any, asset_key: dg.AssetKey, **arguments: Any
    ) -> None:
        if failures and asset_key.path == ["products"]:
            raise failures.pop()
        add_asset_metadata(context, metadata, asset_key, **arguments)

    def before_the_one_before_is_in_place(source: Any, target: Any) -> None:
        if str(target).endswith(".previous") and failures:
            raise failures.pop()
        replace(source, target)

    if moment == "published":
        monkeypatch.setattr(StepExecutionContext, "add_asset_metadata", when_it_was_published)
    else:
        monkeypatch.setattr(os, "replace", before_the_one_before_is_in_place)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("moment", "by"), [("published", "another run"), ("in between", "a retry")]
)
def test_after_a_dead_run_the_comparison_is_with_the_last_reported_snapshot(
    tmp_path: Path,
    octogen: OctogenResource,
    instance: dg.DagsterInstance,
    shops: Sandbox,
    monkeypatch: pytest.MonkeyPatch,
    moment: str,
    by: str,
) -> None:
    pipeline = Pipeline(
        tmp_path,
        octogen,
        instance,
        search=ProductSearch(catalogs=["strada"]),
        retry_policy=dg.RetryPolicy(max_retries=1) if by == "a retry" else None,
    )
    pipeline.shown()
    shops.grant("strada", products=122)
    pipeline.shown()
    shops.grant("strada", products=127)
    dying(monkeypatch, moment)
    if by == "another run":
        with pytest.raises(Exception, match="a machine went away"):
            pipeline.shown()
    assert counts(pipeline.shown()) == (5, 0, 0, 0, 0)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        ".products.previous",
        "products.parquet",
        "products_changes.parquet",
    ]


@pytest.mark.slow
@pytest.mark.parametrize("what", ["products.parquet", ".products.previous"])
def test_a_damaged_file_is_named_and_a_damaged_snapshot_replaced(
    tmp_path: Path, octogen: OctogenResource, instance: dg.DagsterInstance, what: str
) -> None:
    pipeline = Pipeline(tmp_path, octogen, instance, search=ProductSearch(catalogs=["strada"]))
    pipeline.shown()
    pipeline.shown()
    (tmp_path / what).write_bytes(b"PAR1 and no more")
    if what == "products.parquet":
        assert counts(pipeline.shown()) == (0, 0, 0, 0, 0)
        return
    damaged = rf"The file {tmp_path / what} is not a snapshot or is damaged .*\. Materialize it"
    with pytest.raises(dg.Failure, match=damaged):
        pipeline.run([pipeline.products.to_source_asset(), pipeline.assets[1]])
    assert counts(pipeline.shown()) == (0, 0, 0, 0, 0)


@pytest.mark.slow
@pytest.mark.parametrize("by_catalog", [False, True])
def test_a_day_is_compared_with_the_day_before(
    tmp_path: Path,
    octogen: OctogenResource,
    instance: dg.DagsterInstance,
    shops: Sandbox,
    by_catalog: bool,
) -> None:
    now = datetime.now(timezone.utc)
    # The day before has no snapshot, the one before it has.
    today, yesterday = (f"{now - timedelta(days=days):%Y-%m-%d}" for days in (0, 2))
    instance.add_dynamic_partitions("octogen_catalogs", ["strada"])
    search = ProductSearch() if by_catalog else ProductSearch(catalogs=["strada"])
    partitions_def = catalog_days(yesterday) if by_catalog else snapshot_days(yesterday)
    pipeline = Pipeline(tmp_path, octogen, instance, search=search, partitions_def=partitions_def)
    folder = tmp_path / "products" / ("strada" if by_catalog else "")
    key = f"strada|{today}" if by_catalog else today

    first = pipeline.shown(key)
    assert first["octogen/first_snapshot"] is True
    assert first["octogen/appeared"] == 120
    (folder / f"{today}.parquet").rename(folder / f"{yesterday}.parquet")

    shops.grant("strada", products=117)
    second = pipeline.shown(key)
    assert second["octogen/first_snapshot"] is False
    assert counts(second) == (0, 3, 0, 0, 0)
    before = f"strada|{yesterday}" if by_catalog else yesterday
    assert second["octogen/previous_partition"] == before
    # A day that is materialized again is compared with the day before, not with itself.
    assert counts(pipeline.shown(key)) == (0, 3, 0, 0, 0)


@pytest.mark.parametrize(("days", "found"), [(31, True), (32, False)])
def test_the_previous_snapshot_is_at_most_31_partitions_back(
    tmp_path: Path, octogen: OctogenResource, instance: dg.DagsterInstance, days: int, found: bool
) -> None:
    today, before = (
        f"{datetime.now(timezone.utc) - timedelta(days=ago):%Y-%m-%d}" for ago in (0, days)
    )
    pipeline = Pipeline(
        tmp_path,
        octogen,
        instance,
        search=ProductSearch(catalogs=["strada"]),
        partitions_def=snapshot_days(before),
    )
    pipeline.shown(today)
    (tmp_path / f"products/{today}.parquet").rename(tmp_path / f"products/{before}.parquet")
    shown = pipeline.shown(today)
    assert shown["octogen/first_snapshot"] is not found
    assert shown.get("octogen/previous_partition") == (before if found else None)


@pytest.mark.parametrize("by_catalog", [False, True])
def test_changes_of_a_day_follow_its_snapshot_also_after_a_day_without_one(
    tmp_path: Path, octogen: OctogenResource, instance: dg.DagsterInstance, by_catalog: bool
) -> None:
    today, start = (
        f"{datetime.now(timezone.utc) - timedelta(days=days):%Y-%m-%d}" for days in (0, 3)
    )
    yesterday = f"{datetime.now(timezone.utc) - timedelta(days=1):%Y-%m-%d}"
    catalog = "strada|" if by_catalog else ""
    instance.add_dynamic_partitions("octogen_catalogs", ["strada"])
    products = build_products_asset(
        "products",
        ProductSearch() if by_catalog else ProductSearch(catalogs=["strada"]),
        partitions_def=catalog_days(start) if by_catalog else snapshot_days(start),
    )
    changes = build_product_changes_asset(
        products, automation_condition=dg.AutomationCondition.eager()
    )
    io_manager = ParquetSnapshotIOManager(base_dir=str(tmp_path))
    resources = {"octogen": octogen, "io_manager": io_manager}
    defs = dg.Definitions(assets=[products, changes], resources=resources)
    cursor = None

    def requested() -> set[str | None]:
        nonlocal cursor
        result = dg.evaluate_automation_conditions(
            defs, instance, asset_selection=dg.AssetSelection.assets(changes), cursor=cursor
        )
        cursor = result.cursor
        return set(result.get_requested_partitions(changes.key))

    assert requested() == set()
    # Yesterday has a snapshot, today has none yet.
    instance.report_runless_asset_event(
        dg.AssetMaterialization(products.key, partition=f"{catalog}{yesterday}")
    )
    assert requested() == set()
    instance.wipe_assets([products.key])
    key = f"{catalog}{today}"
    dg.materialize([products], resources=resources, instance=instance, partition_key=key)
    assert requested() == {key}
