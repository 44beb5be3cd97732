"""A YAML file of OctogenComponent is a whole deployment that runs."""

from __future__ import annotations

import importlib.metadata
import inspect
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest
from dagster.components.testing.utils import component_defs

from octogen_dagster import (
    OctogenResource,
    ParquetSnapshotIOManager,
    ProductSearch,
    build_snapshot_checks,
)
from octogen_dagster.components import OctogenComponent
from octogen_dagster.sandbox.server import Sandbox
from tests.promises.yaml_projects import LINKED, files, load, load_all, run

CONNECTION = {"api_key": "{{ env.MY_KEY }}", "base_url": "{{ env.MY_URL }}", "attempts": 2}
WHOLE_CATALOGS = {"name": "octogen_products", "partitions": "catalog"}


@pytest.fixture(autouse=True)
def _environment(shops: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", shops.api_key)
    monkeypatch.setenv("MY_URL", shops.base_url)


def test_one_file_is_a_whole_deployment(tmp_path: Path) -> None:
    facets = [{"name": "gender", "values": ["female"]}]
    attributes = {
        "connection": CONNECTION | {"budget_usd": 50, "reserve": 0.5},
        "catalog_source": {"hosts": ["acme.com"]},
        "storage": {"base_dir": str(tmp_path)},
        "translation": {"owners": ["team:data"], "tags": {"source": "octogen"}},
        "searches": [
            WHOLE_CATALOGS
            | {"sensor": "running", "changes": True, "details": True, "brands": True}
            | {"checks": {"max_age_hours": 24, "blocking": True, "exclude": ["nulls"]}},
            {
                "name": "dresses",
                "partitions": "catalog_day",
                "start_date": "2026-11-01",
                "schedule": {"cron": "0 6 * * *", "timezone": "Europe/Berlin", "running": True},
                "sensor": False,
                "search": {
                    "q": "linen dress",
                    "facets": facets,
                    "exclude_facets": [{"name": "color_family", "values": ["Pink"]}],
                    "price_min": 10,
                    "price_max": 200,
                    "understand": True,
                    "omit_generated_facets": ["fit"],
                    "fallback_category": ["Clothing", "Dresses"],
                    "brand_quality_min": 2,
                    "brand_quality_max": 5,
                    "similar_to_brands": ["Acme"],
                    "relax": True,
                    "page_size": 50,
                },
            },
        ],
    }
    with load(attributes) as (_, defs):
        specs = {spec.key.to_user_string(): spec for spec in defs.resolve_all_asset_specs()}
        checks = {str(key) for key in defs.resolve_asset_graph().asset_check_keys}
        sensors = {sensor.name: sensor.default_status.value for sensor in defs.sensors or ()}
        (schedule,) = defs.schedules or ()
        assert isinstance(schedule, dg.ScheduleDefinition)
        resources = set(defs.resources or ())
    names = ["octogen_catalogs", "dresses"]
    names += [f"octogen_products{end}" for end in ("", "_changes", "_details", "_brands")]
    assert specs.keys() == set(names)
    assert all(spec.owners == ["team:data"] for spec in specs.values())
    assert specs["octogen_products_changes"].automation_condition is not None
    assert specs["octogen_products_details"].automation_condition is None  # lookups are charged
    search = specs["dresses"].metadata["octogen/search"].value
    assert search["similar_to_brands"] == ["Acme"]
    assert search["facets"] == facets
    assert any("fresh" in key for key in checks)
    assert not any("octogen_products" in key and "nulls" in key for key in checks)
    assert sensors == {"octogen_products_catalog_sensor": "RUNNING"}
    assert (schedule.cron_schedule, schedule.default_status.value) == ("0 6 * * *", "RUNNING")
    assert resources == {"octogen", "octogen_io_manager"}


def test_whole_catalogs_and_what_follows_them_run(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    search = WHOLE_CATALOGS | {"changes": True, "details": {"only_changed": True}, "brands": True}
    attributes = {
        "connection": CONNECTION,
        "storage": {"base_dir": str(tmp_path)},
        "searches": [search],
    }
    names = [f"octogen_products{end}" for end in ("", "_changes", "_details", "_brands")]
    with load(attributes) as (_, defs):
        run(defs, instance, "octogen_catalogs")
        assert instance.get_dynamic_partitions("octogen_catalogs") == ["northpeak", "strada"]
        result = run(defs, instance, *names, partition="strada")
    checks = {each.check_name: each.passed for each in result.get_asset_check_evaluations()}
    assert checks.keys() > {"prices", "nulls"}
    assert all(checks.values())
    assert files(tmp_path) == {"octogen_catalogs.parquet", *(f"{n}/strada.parquet" for n in names)}
    assert len(pl.read_parquet(tmp_path / "octogen_products_details/strada.parquet")) == 120


@pytest.mark.parametrize(("partitions", "key"), [("day", "{}"), ("catalog_day", "strada|{}")])
def test_a_partition_may_be_a_day(
    partitions: str, key: str, tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    instance.add_dynamic_partitions("octogen_catalogs", ["strada"])
    attributes = {
        "connection": CONNECTION,
        "storage": {"base_dir": str(tmp_path)},
        "searches": [{"name": "daily", "partitions": partitions, "start_date": "2026-01-01"}],
    }
    with load(attributes) as (_, defs):
        definition = defs.resolve_assets_def("daily").partitions_def
        assert definition is not None
        latest = definition.get_partition_keys(dynamic_partitions_store=instance)[-1]
        assert run(defs, instance, "daily", partition=latest).success
    assert latest == key.format(latest[-10:])


@pytest.mark.parametrize("automation", ["{{ dg.AutomationCondition.eager() }}", None])
def test_the_table_of_catalogs_is_upstream_of_their_products(
    automation: str | None, tmp_path: Path, instance: dg.DagsterInstance, shops: Sandbox
) -> None:
    attributes = {
        "connection": CONNECTION,
        "storage": {"base_dir": str(tmp_path)},
        "catalogs": {"translation": {"key": "shops"}},
        "searches": [
            WHOLE_CATALOGS | {"translation": {"automation_condition": automation}},
            {"name": "boots"},
        ],
    }
    cursor = None
    with load(attributes) as (_, defs):
        deps = {s.key: [d.asset_key for d in s.deps] for s in defs.resolve_all_asset_specs()}
        assert deps == {
            dg.AssetKey("shops"): [],
            dg.AssetKey("octogen_products"): [dg.AssetKey("shops")],
            dg.AssetKey("boots"): [],
        }
        requested = []
        for catalogs in (["northpeak"], []):
            run(defs, instance, "shops")
            for catalog in catalogs:
                run(defs, instance, "octogen_products", partition=catalog)
            tick = dg.evaluate_automation_conditions(defs, instance, cursor=cursor)
            cursor = tick.cursor
            requested.append(tick.get_requested_partitions(dg.AssetKey("octogen_products")))
            shops.grant("acme", products=3)
    assert requested == [set(), {"acme"} if automation else set()]


def test_a_search_and_a_source_of_named_catalogs_run(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    attributes = {
        "connection": CONNECTION,
        "storage": {"base_dir": str(tmp_path)},
        "catalog_source": {"keys": ["strada"]},
        "catalogs": {"name": "shops"},
        "searches": [
            {"name": "cheap", "search": {"price_max": 60, "max_products": 30}, "checks": False}
        ],
    }
    with load(attributes) as (_, defs):
        assert not list(defs.asset_checks or ())
        run(defs, instance, "shops", "cheap")
    assert files(tmp_path) == {"shops.parquet", "cheap.parquet"}
    assert set(pl.read_parquet(tmp_path / "cheap.parquet")["catalog_key"]) == {"strada"}


class Logging(OctogenComponent):
    """A component that counts the rows of what it stores."""

    def execute(
        self, context: dg.AssetExecutionContext, compute: Callable[[], Any]
    ) -> Iterator[Any]:
        for result in super().execute(context, compute):
            rows = result.value.frame.select(pl.len()).collect().item()
            yield result._replace(metadata={**(result.metadata or {}), "counted": rows})


def test_a_subclass_changes_how_assets_run(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    component = Logging.from_attributes_dict(
        attributes={
            "connection": CONNECTION,
            "storage": {"base_dir": str(tmp_path)},
            "searches": [{"name": "boots", "search": {"max_products": 7}}],
        }
    )
    result = run(component_defs(component=component), instance, "boots")
    (event,) = result.get_asset_materialization_events()
    metadata = event.materialization.metadata
    assert metadata["counted"].value == 7
    assert metadata["dagster/row_count"].value == 7


def test_two_components_read_with_two_keys(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    attributes = [
        {
            "name": name,
            "connection": CONNECTION,
            "storage": {"base_dir": str(tmp_path / name)},
            "catalog_source": {"keys": [catalog]},
            "searches": [{"name": f"{name}_products", "partitions": "catalog"}],
        }
        for name, catalog in (("first", "northpeak"), ("second", "strada"))
    ]
    with load_all(*attributes) as defs:
        run(defs, instance, "first_catalogs", "second_catalogs")
        assert instance.get_dynamic_partitions("first_catalogs") == ["northpeak"]
        assert instance.get_dynamic_partitions("second_catalogs") == ["strada"]
        run(defs, instance, "second_products", partition="strada")
        assert {sensor.name for sensor in defs.sensors or ()} == {
            "first_products_catalog_sensor",
            "second_products_catalog_sensor",
        }
    assert files(tmp_path) == {
        "first/first_catalogs.parquet",
        "second/second_catalogs.parquet",
        "second/second_products/strada.parquet",
    }


def test_two_components_need_two_names() -> None:
    with (
        pytest.raises(Exception, match="Error while") as caught,
        load_all({}, {"searches": [{"name": "boots"}]}),
    ):
        pass
    assert "Two OctogenComponents of this project have the name 'octogen'" in texts(caught.value)


def texts(error: BaseException | None) -> str:
    """The messages of an error and its causes."""
    return "" if error is None else f"{error}\n{texts(error.__cause__)}"


def test_a_project_keeps_an_io_manager_and_assets_of_its_own(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    @dg.asset
    def titles(boots: pl.LazyFrame) -> int:
        return boots.select("title").collect().height

    attributes = {
        "connection": CONNECTION,
        "storage": {"base_dir": str(tmp_path)},
        "searches": [{"name": "boots", "search": {"max_products": 7}}],
    }
    with load(attributes) as (_, ours):
        own = dg.Definitions(assets=[titles], resources={"io_manager": dg.mem_io_manager})
        defs = dg.Definitions.merge(ours, own)
        result = run(defs, instance, "boots", "titles")
    assert result.output_for_node("titles") == 7


@pytest.mark.parametrize(
    ("attributes", "has_table"),
    [
        ({"searches": [{"name": "boots"}]}, False),
        ({"searches": [{"name": "shops", "partitions": "catalog"}]}, True),
        ({"searches": [{"name": "shops", "partitions": "catalog"}], "catalogs": False}, False),
        ({"catalogs": True}, True),
    ],
)
def test_the_table_of_catalogs_is_there_where_catalogs_are_partitions(
    attributes: dict[str, Any], has_table: bool
) -> None:
    with load(attributes) as (_, defs):
        keys = {spec.key.to_user_string() for spec in defs.resolve_all_asset_specs()}
    assert ("octogen_catalogs" in keys) is has_table


def test_without_storage_the_io_manager_of_the_project_stores(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    with load({"connection": CONNECTION, "storage": None, "catalogs": True}) as (_, ours):
        own = dg.Definitions(
            resources={"io_manager": ParquetSnapshotIOManager(base_dir=str(tmp_path))}
        )
        run(dg.Definitions.merge(ours, own), instance, "octogen_catalogs")
    assert files(tmp_path) == {"octogen_catalogs.parquet"}


def test_secrets_stay_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MY_KEY")
    monkeypatch.setenv("STORE_SECRET", "hunter2")
    attributes = {
        "connection": CONNECTION | {"timeout": "{{ 20 + 2 }}"},
        "storage": {
            "base_dir": "s3://bucket/{{ env('STAGE', 'dev') }}",
            "storage_options": {
                "aws_region": "eu-west-1",
                "aws_secret_access_key": "{{ env.STORE_SECRET }}",
            },
        },
    }
    with load(attributes) as (_, defs):
        resources: dict[str, Any] = dict(defs.resources or {})
    octogen, store = resources["octogen"], resources["octogen_io_manager"]
    assert (octogen.api_key, octogen.timeout) == (dg.EnvVar("MY_KEY"), 22)
    assert isinstance(octogen.api_key, dg.EnvVar)
    assert store.base_dir == "s3://bucket/dev"
    assert store.storage_options["aws_region"] == "eu-west-1"
    assert isinstance(store.storage_options["aws_secret_access_key"], dg.EnvVar)
    linked = {"project": "p", "principal": "user:me@my.org", "gcp_credentials": "{{ env.KEY }}"}
    with load(linked | {"products": True}, LINKED) as (_, defs):
        resources = dict(defs.resources or {})
    for key in ("analytics_hub", "bigquery"):
        assert isinstance(resources[key].gcp_credentials, dg.EnvVar)


def test_yaml_has_every_field_of_the_resources_and_every_limit_of_the_checks() -> None:
    schema = OctogenComponent.get_model_cls().model_json_schema()
    fields = {name: set(part.get("properties", ())) for name, part in schema["$defs"].items()}
    checks = {"max_age_hours" if n == "max_age" else n for n in signature(build_snapshot_checks)}
    assert fields["OctogenResourceFields"] == set(OctogenResource.model_fields) - {"catalogs"}
    assert fields["StorageSettings"] == set(ParquetSnapshotIOManager.model_fields)
    assert fields["ProductSearchFields"] == set(ProductSearch.model_fields)
    assert fields["CheckSettings"] == checks


def signature(function: Callable[..., Any]) -> list[str]:
    """The keywords of a function that are not private."""
    return [
        name
        for name, each in inspect.signature(function).parameters.items()
        if each.kind is each.KEYWORD_ONLY and not name.startswith("_")
    ]


STATUS = dg.DefaultSensorStatus


@pytest.mark.parametrize(
    ("sensor", "expected"),
    [
        (None, {"octogen_products_catalog_sensor": STATUS.STOPPED}),
        (True, {"octogen_products_catalog_sensor": STATUS.STOPPED}),
        ("running", {"octogen_products_catalog_sensor": STATUS.RUNNING}),
        (False, {}),
    ],
)
def test_a_sensor_is_stopped_running_or_not_there(
    sensor: bool | str | None, expected: dict[str, STATUS]
) -> None:
    given = {} if sensor is None else {"sensor": sensor}
    with load({"searches": [WHOLE_CATALOGS | given]}) as (_, defs):
        assert {each.name: each.default_status for each in defs.sensors or ()} == expected


def test_a_schedule_is_cron_text_or_more() -> None:
    searches = [
        {"name": "boots", "schedule": "@daily"},
        {"name": "hats", "schedule": {"cron": "0 6 * * *", "timezone": "Asia/Tokyo"}},
        WHOLE_CATALOGS | {"schedule": {"cron": "0 3 * * 0", "running": True}},
    ]
    with load({"searches": searches}) as (_, defs):
        schedules: list[Any] = list(defs.schedules or ())
    assert [
        (each.name, each.cron_schedule, each.execution_timezone, each.default_status.value)
        for each in schedules
    ] == [
        ("boots_schedule", "@daily", "UTC", "STOPPED"),
        ("hats_schedule", "0 6 * * *", "Asia/Tokyo", "STOPPED"),
        ("octogen_products_schedule", "0 3 * * 0", "UTC", "RUNNING"),
    ]


def test_arguments_of_checks_reach_them() -> None:
    checks = {"max_age_hours": None, "exclude": ["prices"], "blocking": True}
    with load({"searches": [{"name": "boots", "checks": checks}]}) as (_, defs):
        specs = {spec.name: spec for each in defs.asset_checks or () for spec in each.check_specs}
    assert not {"fresh", "prices"} & specs.keys()
    assert specs["nulls"].blocking


@pytest.mark.parametrize("text", ["501", "None", "1e5", "[1]", "'a'", "501 {{ 1 }}", "true"])
def test_a_text_stays_a_text(text: str) -> None:
    with load({"searches": [{"name": "boots", "search": {"q": text}}]}) as (_, defs):
        (spec,) = defs.resolve_all_asset_specs()
    assert spec.metadata["octogen/search"].value["q"] == text.replace("{{ 1 }}", "1")


def test_dg_describes_the_components_without_heavy_libraries() -> None:
    (entry,) = importlib.metadata.entry_points(
        group="dagster_dg_cli.registry_modules", name="octogen_dagster"
    )
    program = f"""
import sys
from {entry.value} import OctogenComponent, OctogenLinkedDatasetsComponent
for component in (OctogenComponent, OctogenLinkedDatasetsComponent):
    component.get_model_cls().model_json_schema()
heavy = {{"polars", "google.cloud", "dagster_gcp", "mcp", "pyarrow", "httpx"}}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
