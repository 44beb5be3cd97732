"""Takes a name away that no library promises, from this package only, and shows what still works.

    uv run python -m tests.taken_away

does so for each name in turn, in a process of its own. CONTRIBUTING.md says what each is for.
"""

from __future__ import annotations

import builtins
import contextlib
import inspect
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dagster as dg
import polars as pl
import pytest

PACKAGE = "octogen_dagster"


class _Gone:
    """An attribute that this package does not find, and others do."""

    def __init__(self, name: str, real: Any) -> None:
        self._name, self._real = name, real

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        if _asked_by_the_package():
            raise AttributeError(self._name)
        return self._real.__get__(instance, owner)


def _asked_by_the_package() -> bool:
    return str(sys._getframe(2).f_globals.get("__name__")).startswith(PACKAGE)


def _gone(patch: pytest.MonkeyPatch, owner: type, name: str) -> None:
    patch.setattr(owner, name, _Gone(name, inspect.getattr_static(owner, name)))


def _without_import(patch: pytest.MonkeyPatch, module: str) -> None:
    imported = builtins.__import__

    def without(name: str, *arguments: Any, **options: Any) -> Any:
        if name == module and _asked_by_the_package():
            raise ImportError(name)
        return imported(name, *arguments, **options)

    patch.setattr(builtins, "__import__", without)


def _without_hint(patch: pytest.MonkeyPatch, name: str) -> None:
    for each in dg.AssetCheckEvaluation.__mro__:
        hints = dict(vars(each).get("__annotations__", {}))
        if hints.pop(name, None):
            patch.setattr(each, "__annotations__", hints)


def _without_originals(patch: pytest.MonkeyPatch) -> None:
    class Resources:
        def __init__(self, real: Any) -> None:
            self._real = real

        def __getattr__(self, name: str) -> Any:
            if name == "original_resource_dict":
                raise AttributeError(name)
            return getattr(self._real, name)

    real: Any = inspect.getattr_static(dg.AssetExecutionContext, "resources")
    patch.setattr(
        dg.AssetExecutionContext, "resources", property(lambda self: Resources(real.fget(self)))
    )


def take_away(patch: pytest.MonkeyPatch, name: str) -> None:
    """Take one of `NAMES` away."""
    from dagster._core.execution.context.system import StepExecutionContext
    from dagster._core.storage.event_log.sql_event_log import SqlEventLogStorage
    from google.cloud import bigquery

    owners: dict[str, type] = {
        "get_latest_storage_id_by_partition": dg.DagsterInstance,
        "get_latest_tags_by_partition": SqlEventLogStorage,
        "get_io_manager_key_for_asset_key": dg.AssetsDefinition,
        "get_resource_requirements": dg.OpDefinition,
        "asset_layer": dg.JobDefinition,
        "step_context": dg.OutputContext,
        "add_asset_metadata": StepExecutionContext,
        "resolved_run_config": StepExecutionContext,
        "all_instigator_state": dg.DagsterInstance,
        "get_ticks": dg.DagsterInstance,
        "_ensure_bqstorage_client": bigquery.Client,
        "collect_batches": pl.LazyFrame,
        "serialize": type(pl.col("a").meta),
    }
    if name in owners:
        patch.setattr(owners[name], name, _Gone(name, inspect.getattr_static(owners[name], name)))
    elif name == "dagster_shared.libraries":
        _without_import(patch, name)
    elif name == "target_materialization_data":
        _without_hint(patch, name)
    elif name == "original_resource_dict":
        _without_originals(patch)


NAMES = (
    *("get_latest_storage_id_by_partition", "get_latest_tags_by_partition"),
    *("get_io_manager_key_for_asset_key", "asset_layer", "target_materialization_data"),
    *("step_context", "add_asset_metadata", "resolved_run_config", "original_resource_dict"),
    *("all_instigator_state", "get_ticks", "dagster_shared.libraries"),
    *("_ensure_bqstorage_client", "collect_batches", "serialize", "get_resource_requirements"),
)
CATALOGS = {"acme": 4, "strada": 3}
RANGE = {
    "dagster/asset_partition_range_start": "acme",
    "dagster/asset_partition_range_end": "strada",
}


class Journeys:
    """What a user does, in a folder and an instance of its own; each says what came of it."""

    def __init__(self, folder: Path, instance: dg.DagsterInstance, server: Any) -> None:
        from octogen_dagster import build_products_asset, build_snapshot_checks, catalog_partitions
        from tests.projects import Project
        from tests.promises.runs.range_runs import single_run
        from tests.results import octogen_at

        instance.add_dynamic_partitions("octogen_catalogs", list(CATALOGS))
        self.project = Project(folder, instance, octogen_at(server))
        self.server = server
        self.products = build_products_asset(
            "products", partitions_def=catalog_partitions, backfill_policy=single_run()
        )
        self.checks = build_snapshot_checks(self.products)

    def a_run(self) -> str:
        result = self.project.run([self.products, *self.checks], partition_key="acme")
        return f"{len(result.get_asset_check_evaluations())} checks"

    def a_run_of_several(self) -> str:
        result = self.project.run([self.products, *self.checks], tags=RANGE)
        evaluations = result.get_asset_check_evaluations()
        named = [each for each in evaluations if each.target_materialization_data]
        return f"{len(evaluations)} checks, {len(named)} of a materialization"

    def frames_of_ones_own(self) -> str:
        products = self.products

        @dg.asset(partitions_def=products.partitions_def, backfill_policy=products.backfill_policy)
        def titles() -> dict[str, pl.DataFrame]:
            return {key: pl.DataFrame({"title": ["a"]}) for key in CATALOGS}

        result = self.project.run([titles], tags=RANGE)
        events = result.asset_materializations_for_node("titles")
        rows = sum("dagster/partition_row_count" in each.metadata for each in events)
        return f"{len(events)} materializations, {rows} with rows"

    def another_io_manager(self) -> str:
        from octogen_dagster import build_product_brands_asset

        @dg.asset
        def shop() -> pl.DataFrame:
            return self.project.read("products", "acme")

        result = dg.materialize(
            [shop, build_product_brands_asset(shop)],
            resources={"io_manager": dg.FilesystemIOManager(base_dir=str(self.project.folder))},
            instance=self.project.instance,
        )
        return f"{len(result.asset_materializations_for_node('shop_brands'))} of what follows"

    def a_history_and_alerts(self) -> str:
        from octogen_dagster import (
            PriceDropped,
            build_price_alerts_asset,
            build_product_history_asset,
        )

        history = build_product_history_asset(self.products)
        alerts = build_price_alerts_asset(history, [PriceDropped(percent=5)])
        for _ in range(2):
            self.project.run([self.products, history, alerts], partition_key="acme")
        return f"{self.project.read('products_history', 'acme').height} rows"

    def a_table(self) -> str:
        from octogen_dagster import DuckDBTables, build_table_asset

        tables = DuckDBTables(database=str(self.project.folder / "shop.duckdb"))
        table = build_table_asset(
            self.products, tables, backfill_policy=self.products.backfill_policy
        )
        result = self.project.run([self.products, table], tags=RANGE, selection=[table])
        events = result.get_asset_materialization_events()
        return f"{sum(each.asset_key == table.key for each in events)} partitions"

    def a_tick(self) -> str:
        from octogen_dagster import build_catalog_sensor

        octogen = self.project.octogen
        context = dg.build_sensor_context(
            instance=self.project.instance, resources={"octogen": octogen}
        )
        result: Any = build_catalog_sensor(self.products)(context)
        return f"{len(result.run_requests or ())} requests"

    def a_tick_without_an_answer(self) -> str:
        from octogen_dagster import OctogenResource, build_catalog_sensor

        here = property(lambda _: SimpleNamespace(location_name="here"))
        nowhere = OctogenResource(api_key="key", base_url="http://127.0.0.1:9/v1", attempts=1)
        context = dg.build_sensor_context(
            instance=self.project.instance,
            repository_name="repository",
            resources={"octogen": nowhere},
        )
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(dg.SensorEvaluationContext, "code_location_origin", here)
            return type(build_catalog_sensor(self.products)(context)).__name__

    def no_catalog_source(self) -> str:
        from octogen_dagster import OctogenResource, build_catalogs_asset

        definitions = dg.Definitions(
            [build_catalogs_asset()], resources={"octogen": OctogenResource()}
        )
        try:
            dg.Definitions.validate_loadable(definitions)
        except dg.DagsterInvalidDefinitionError:
            return "refused"
        return "not refused"

    def a_filter(self) -> str:
        from tests.results import scan

        scan(self.server).filter(pl.col("current_price") <= 1e6).collect()
        asked = any("price_max" in (each.body or {}) for each in self.server.requests)
        return f"{'' if asked else 'not '}asked of the service"

    def a_linked_view(self) -> str:
        from octogen_dagster import build_linked_snapshot_asset
        from tests.promises.sharing.linked import BIGQUERY, linked
        from tests.servers.bigquery import BigQueryServer, serving

        with serving(BigQueryServer(), self.project.folder):
            result = self.project.run(
                [linked, build_linked_snapshot_asset(linked)], resources=BIGQUERY
            )
        (event,) = result.asset_materializations_for_node("octogen_linked_snapshot")
        return f"read by {event.metadata['octogen/read_by'].value}"


@contextlib.contextmanager
def opened(folder: Path) -> Iterator[Journeys]:
    """The journeys, in a folder that is empty."""
    from octogen_dagster.sandbox.server import Sandbox

    with (
        Sandbox(catalogs=CATALOGS, generation="seed") as sandbox,
        dg.instance_for_test() as instance,
    ):
        yield Journeys(folder, instance, sandbox)


def _show(name: str) -> None:
    """Take a name away, import all public names, and print what each journey says, or its error."""
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        take_away(patch, name)
        import octogen_dagster

        for public in octogen_dagster.__all__:
            getattr(octogen_dagster, public)
        with opened(Path(folder)) as journeys:
            for journey in [each for each in vars(Journeys) if not each.startswith("_")]:
                try:
                    said = getattr(journeys, journey)()
                except Exception as error:
                    said = f"FAILS: {type(error).__name__}: {error}"
                print(f"  {journey.replace('_', ' ')}: {said}")


if __name__ == "__main__":
    if sys.argv[1:]:
        _show(sys.argv[1])
        sys.exit()
    for each in ("nothing", *NAMES):
        command = [sys.executable, "-m", "tests.taken_away", each]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        print(f"without {each}:\n{done.stdout}", end="", flush=True)
        for line in done.stderr.splitlines():
            if "octogen-dagster" in line:  # of a warning
                print(f"  says: {line}", flush=True)
        if done.returncode:
            print(f"  FAILS: {done.stderr.splitlines()[-1]}", flush=True)
