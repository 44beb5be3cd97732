"""A YAML file of OctogenComponent is a whole deployment that runs."""

from __future__ import annotations

import importlib.metadata
import inspect
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import polars as pl
import pytest
import yaml
from dagster.components.testing import create_defs_folder_sandbox
from dagster.components.testing.utils import component_defs

import octogen_dagster as od
from octogen_dagster.components import OctogenComponent, OctogenLinkedDatasetsComponent
from octogen_dagster.sandbox.server import Sandbox
from octogen_dagster.schemas import ALERTS_SCHEMA
from tests.api.servers import RawServer, http, in_turn
from tests.promises.yaml.yaml_projects import LINKED, TYPE, files, load, load_all, run

CONNECTION = {"api_key": "{{ env.MY_KEY }}", "base_url": "{{ env.MY_URL }}", "attempts": 2}
WHOLE_CATALOGS = {"name": "octogen_products", "partitions": "catalog"}
SEVEN_BOOTS = {"name": "boots", "search": {"max_products": 7}}


pytestmark = pytest.mark.seed  # the catalogs of these components are granted


@pytest.fixture(autouse=True)
def _environment(shops: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", shops.api_key)
    monkeypatch.setenv("MY_URL", shops.base_url)


def attributes(folder: Path, *searches: dict[str, Any], **others: Any) -> dict[str, Any]:
    """The attributes of a component that reads the sandbox and stores in a folder."""
    return {
        "connection": CONNECTION,
        "storage": {"base_dir": str(folder)},
        "searches": list(searches),
        **others,
    }


def test_one_file_is_a_whole_deployment(tmp_path: Path) -> None:
    products = WHOLE_CATALOGS | {
        "sensor": "running",
        "changes": True,
        "details": True,
        "brands": True,
        "history": True,
        "alerts": [
            {"kind": "price_dropped", "percent": 10, "max_percent": 5},
            {"kind": "disappeared", "name": "acme_gone", "where": "brand.name = 'Acme'"},
        ],
        "checks": {"max_age": "24 hours", "blocking": True, "exclude": ["nulls", "no_gap"]},
    }
    dresses = {
        "name": "dresses",
        "partitions": "catalog_days",
        "start_date": "2026-11-01",
        "schedule": {
            "cron_schedule": "0 6 * * *",
            "execution_timezone": "Europe/Berlin",
            "running": True,
        },
        "sensor": False,
        "search": {"facets": [{"name": "gender", "values": ["female"]}]},
    }
    others: dict[str, Any] = {
        "catalog_source": {"hosts": ["acme.com"]},
        "translation": {"owners": ["team:data"]},
    }
    with load(attributes(tmp_path, products, dresses, **others)) as (_, defs):
        specs = {spec.key.to_user_string(): spec for spec in defs.resolve_all_asset_specs()}
        keys = defs.resolve_asset_graph().asset_check_keys
        sensors = {sensor.name: sensor.default_status.value for sensor in defs.sensors or ()}
        schedules: list[Any] = list(defs.schedules or ())
        resources = set(defs.resources or ())
    ends = ("", "_changes", "_details", "_brands", "_history", "_alerts")
    names = [f"octogen_products{end}" for end in ends]
    assert specs.keys() == {"octogen_catalogs", "dresses", *names}
    assert all(spec.owners == ["team:data"] for spec in specs.values())
    assert specs["octogen_products_changes"].automation_condition is not None
    assert specs["octogen_products_details"].automation_condition is None  # lookups are charged
    assert specs["dresses"].metadata["octogen/search"].value["facets"] == [
        {"name": "gender", "values": ["female"]}
    ]
    checks = {key.name for key in keys if key.asset_key.path == ["octogen_products"]}
    assert "fresh" in checks
    assert "nulls" not in checks
    checks = {key.name for key in keys if key.asset_key.path == ["octogen_products_history"]}
    assert checks == {"one_current_row", "no_overlap", "nothing_left_out"}
    checks = {key.name for key in keys if key.asset_key.path == ["octogen_products_alerts"]}
    assert checks == {"price_dropped", "acme_gone"}
    assert specs["octogen_products_alerts"].automation_condition is not None
    assert sensors == {"octogen_products_catalog_sensor": "RUNNING"}
    assert [
        (each.name, each.cron_schedule, each.execution_timezone, each.default_status.value)
        for each in schedules
    ] == [("dresses_schedule", "0 6 * * *", "Europe/Berlin", "RUNNING")]
    assert resources == {"octogen", "octogen_io_manager"}


def test_a_text_stands_for_the_setting_that_is_meant(tmp_path: Path) -> None:
    tables = {"destination": {"postgres": "{{ env.MY_URL }}"}}
    search = {"name": "boots", "search": "winter boots", "tables": tables}
    with load(attributes(tmp_path, search, storage=str(tmp_path))) as (component, _):
        assert isinstance(component, OctogenComponent)
    (boots,) = component.searches
    assert component.storage
    assert component.storage.base_dir == str(tmp_path)
    assert boots.search == od.ProductSearch(q="winter boots")
    assert boots.tables
    assert boots.tables.destination
    assert boots.tables.destination.uri == dg.EnvVar("MY_URL")


DOCS = Path(__file__).parents[3] / "docs"
BLOCKS = (DOCS / "notify-slack.md").read_text().split("```")


def block(title: str) -> str:
    """The code with a title on the page about Slack notifications."""
    (found,) = (each for each in BLOCKS if f'title="{title}"\n' in each)
    return textwrap.dedent(found.partition("\n")[2])


def test_each_who_is_told_of_alerts_has_a_sensor_of_its_own(
    tmp_path: Path,
    instance: dg.DagsterInstance,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    notify = {"function": ".teams.post", "slack": "{{ env.HOOK }}", "running": True}
    notify |= yaml.safe_load(block("email"))["notify"]
    search = SEVEN_BOOTS | {"history": True, "alerts": [{"kind": "disappeared"}], "notify": notify}
    with create_defs_folder_sandbox() as project:
        contents = {"type": TYPE, "attributes": attributes(tmp_path, search)}
        path = project.scaffold_component(OctogenComponent, defs_yaml_contents=contents)
        (path / "teams.py").write_text(block("teams.py"))
        with project.build_all_defs() as defs:  # without the variables, which a tick reads
            sensors = {each.name: each for each in defs.sensors or ()}
            assert {name: each.default_status.value for name, each in sensors.items()} == {
                f"boots_alerts_{way}": "RUNNING" for way in ("sensor", "slack", "email")
            }
            alert = {"alert_id": "1", "rule": "disappeared", "product_url": "https://acme.com/hat"}
            alerts = pl.DataFrame([alert], schema=ALERTS_SCHEMA)
            alerts.write_parquet(tmp_path / "boots_alerts.parquet")
            instance.report_runless_asset_event(dg.AssetMaterialization("boots_alerts"))
            given: dict[str, Any] = {
                "repository_def": defs.get_repository_def(),
                "resources": {
                    "octogen_io_manager": od.ParquetSnapshotIOManager(base_dir=str(tmp_path))
                },
            }
            with RawServer(in_turn(http(body="ok"))) as slack:
                monkeypatch.setenv("HOOK", f"{slack.origin}/services/secret")
                for name in ("boots_alerts_sensor", "boots_alerts_slack"):
                    with dg.build_sensor_context(instance, **given) as context:
                        sensors[name](context)
    (message,) = slack.received
    assert "disappeared: " in message.body.decode()
    assert "https://acme.com/hat" in capsys.readouterr().out


@pytest.mark.slow
def test_whole_catalogs_and_what_follows_them_run(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    search = WHOLE_CATALOGS | {"changes": True, "details": {"only_changed": True}, "brands": True}
    search |= {"history": True, "alerts": [{"kind": "appeared", "where": "current_price > 50"}]}
    ends = ("", "_changes", "_details", "_brands", "_history", "_alerts")
    names = [f"octogen_products{end}" for end in ends]
    with load(attributes(tmp_path, search)) as (_, defs):
        run(defs, instance, "octogen_catalogs")
        assert instance.get_dynamic_partitions("octogen_catalogs") == ["northpeak", "strada"]
        result = run(defs, instance, *names, partition="strada")
    checks = {each.check_name: each.passed for each in result.get_asset_check_evaluations()}
    assert checks.keys() > {"prices", "nulls", "no_gap"}
    assert all(checks.values())
    assert files(tmp_path) == {"octogen_catalogs.parquet", *(f"{n}/strada.parquet" for n in names)}
    assert len(pl.read_parquet(tmp_path / "octogen_products_details/strada.parquet")) == 120


@pytest.mark.slow
def test_tables_follow_the_assets_that_are_named(
    tmp_path: Path, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_DATABASE", str(tmp_path / "shop.duckdb"))
    destination = {"duckdb": "{{ env.MY_DATABASE }}"}
    tables_of: dict[str, Any] = {"destination": destination, "of": ["products", "history"]}
    search = WHOLE_CATALOGS | {"changes": True, "history": True, "tables": tables_of}
    boots = SEVEN_BOOTS | {"tables": {"destination": {"duckdb": str(tmp_path / "shop.duckdb")}}}
    names = ["octogen_products", "octogen_products_history"]
    tables = [f"{name}_table" for name in names]
    with load(attributes(tmp_path, search, boots)) as (_, defs):
        keys = {spec.key.to_user_string() for spec in defs.resolve_all_asset_specs()}
        assert {key for key in keys if key.endswith("_table")} == {*tables, "boots_table"}
        policies = [defs.resolve_assets_def(name).backfill_policy for name in (*names, *tables)]
        assert [each and each.max_partitions_per_run for each in policies] == [25, 26, 26, 27]
        spec = defs.resolve_assets_def(tables[0]).specs_by_key[dg.AssetKey(tables[0])]
        assert spec.automation_condition is not None
        run(defs, instance, "octogen_catalogs", "boots", "boots_table")
        assert run(defs, instance, *names, *tables, partition="strada").success
    with duckdb.connect(str(tmp_path / "shop.duckdb"), read_only=True) as reader:
        counts = {
            name: reader.execute(f"SELECT count(*) FROM octogen.{name}").fetchone()
            for name in ("boots", *names)
        }
    assert counts == {"boots": (7,), **dict.fromkeys(names, (120,))}


@pytest.mark.slow
def test_own_prices_stand_beside_the_history_also_in_a_table_and_who_is_below_them_is_told(
    tmp_path: Path, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    @dg.asset(key=["shop", "articles"], io_manager_def=dg.mem_io_manager)
    def articles() -> pl.DataFrame:
        boots = pl.read_parquet(tmp_path / "boots.parquet").filter("in_stock")
        priced = boots.drop_nulls(["current_price", "currency"]).head(1)
        own = {"sku": pl.lit("4711"), "price": pl.lit(1e9), "floor": pl.lit(1e8)}
        return priced.select("product_url", "currency", **own)

    position = {"price_list": "shop/articles", "translation": {"group_name": "prices"}}
    tables = {
        "destination": {"duckdb": str(tmp_path / "shop.duckdb")},
        "of": ["position", "alerts"],
    }
    alerts = [{"kind": "undercut", "percent": 5}, {"kind": "below_floor", "column": "floor"}]
    settings = {"alerts": alerts, "notify": "builtins.print", "tables": tables}
    settings["checks"] = {"exclude": ["undercut_percent", "undercut"]}
    search = SEVEN_BOOTS | {"history": True, "position": position, **settings}
    names = ["boots", "boots_history", "boots_position", "boots_position_table"]
    of_list = "boots_price_list"
    names += [f"{of_list}_history", f"{of_list}_alerts", f"{of_list}_alerts_table"]
    with (
        Sandbox(catalogs={"strada": 20}) as priced,  # of the generation that has currencies
        load(attributes(tmp_path, search, automation="running")) as (_, loaded),
    ):
        monkeypatch.setenv("MY_KEY", priced.api_key)
        monkeypatch.setenv("MY_URL", priced.base_url)
        defs = dg.Definitions.merge(loaded, dg.Definitions(assets=[articles]))
        specs = {spec.key.to_user_string(): spec for spec in defs.resolve_all_asset_specs()}
        assert specs["boots_position"].group_name == "prices"
        assert specs["boots_position"].automation_condition is not None
        checked = {key.to_user_string() for key in defs.resolve_asset_graph().asset_check_keys}
        assert {
            f"boots_price_list_history:{name}" for name in ("no_gap", "nothing_left_out")
        } < checked
        assert "boots_price_list_history:fresh" not in checked
        assert run(defs, instance, "shop/articles", *names).success
        sensors = {each.name for each in defs.sensors or ()}
        assert sensors == {"boots_price_list_alerts_sensor", "octogen_automation"}
    events = pl.read_parquet(tmp_path / "boots_price_list_alerts.parquet")
    assert events.sort("rule").select("rule", "sku", "price").rows() == [
        ("below_floor", "4711", 1e9),
        ("undercut", "4711", 1e9),
    ]
    with duckdb.connect(str(tmp_path / "shop.duckdb"), read_only=True) as reader:
        rows = reader.execute(
            "SELECT sku, status <> 'not_found' FROM octogen.boots_position"
        ).fetchall()
    assert rows == [("4711", True)]


@pytest.mark.parametrize(
    ("settings", "others", "most"),
    [
        ({"partitions": "catalog"}, {}, 25),
        ({"partitions": "catalog_days", "start_date": "2026-01-01"}, {}, 25),
        ({"partitions": "catalog", "catalogs_per_run": 200}, {}, 200),
        ({"partitions": "catalog", "catalogs_per_run": 1}, {}, None),
        ({"partitions": "snapshot_days", "start_date": "2026-01-01"}, {}, None),
        ({}, {}, None),
        ({"partitions": "catalog"}, {"storage": None}, None),
        ({"partitions": "catalog", "catalogs_per_run": 9}, {"storage": None}, 9),
    ],
)
def test_runs_have_several_catalogs_where_partitions_are_catalogs(
    tmp_path: Path, settings: dict[str, Any], others: dict[str, Any], most: int | None
) -> None:
    search = {"name": "products", "brands": True, **settings}
    with load(attributes(tmp_path, search, **others)) as (_, defs):
        for name in ("products", "products_brands"):
            policy = defs.resolve_assets_def(name).backfill_policy
            # A backfill of both has a run of its own for each, since the numbers differ.
            expected = None if most is None else most + (name != "products")
            assert (policy and policy.max_partitions_per_run) == expected


@pytest.mark.parametrize(
    ("partitions", "key"), [("snapshot_days", "{}"), ("catalog_days", "strada|{}")]
)
def test_a_partition_may_be_a_day(
    partitions: str, key: str, tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    instance.add_dynamic_partitions("octogen_catalogs", ["strada"])
    search = {"name": "daily", "partitions": partitions, "start_date": "2026-01-01"}
    with load(attributes(tmp_path, search)) as (_, defs):
        definition = defs.resolve_assets_def("daily").partitions_def
        assert definition is not None
        latest = definition.get_partition_keys(dynamic_partitions_store=instance)[-1]
        assert run(defs, instance, "daily", partition=latest).success
    assert latest == key.format(latest[-10:])


@pytest.mark.slow
@pytest.mark.parametrize("automation", ["{{ dg.AutomationCondition.eager() }}", None])
def test_the_table_of_catalogs_is_upstream_and_requests_only_new_catalogs(
    automation: str | None, tmp_path: Path, instance: dg.DagsterInstance, shops: Sandbox
) -> None:
    search = WHOLE_CATALOGS | {"translation": {"automation_condition": automation}}
    table = {"translation": {"key": "shops"}}
    cursor = None
    with load(attributes(tmp_path, search, SEVEN_BOOTS, catalogs=table)) as (_, defs):
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


@pytest.mark.parametrize(
    ("settings", "has_table"),
    [
        ({"searches": [SEVEN_BOOTS]}, False),
        ({"searches": [WHOLE_CATALOGS], "catalogs": False}, False),
        ({"catalogs": True}, True),
    ],
)
def test_the_table_of_catalogs_is_there_where_catalogs_are_partitions(
    settings: dict[str, Any], has_table: bool
) -> None:
    with load(settings) as (_, defs):
        keys = {spec.key.to_user_string() for spec in defs.resolve_all_asset_specs()}
    assert ("octogen_catalogs" in keys) is has_table


class Logging(OctogenComponent):
    """A component that counts the rows of what it stores."""

    def execute(
        self, context: dg.AssetExecutionContext, compute: Callable[[], Any]
    ) -> Iterator[Any]:
        for result in super().execute(context, compute):
            rows = result.value.frame.select(pl.len()).collect().item()
            yield result._replace(metadata={**(result.metadata or {}), "counted": rows})


def test_a_subclass_changes_how_assets_run(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    component = Logging.from_attributes_dict(attributes=attributes(tmp_path, SEVEN_BOOTS))
    result = run(component_defs(component=component), instance, "boots")
    (event,) = result.get_asset_materialization_events()
    metadata = event.materialization.metadata
    assert metadata["counted"].value == metadata["dagster/row_count"].value == 7


@pytest.mark.slow
def test_two_components_read_with_two_keys(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    components = [
        attributes(
            tmp_path / name,
            {"name": f"{name}_products", "partitions": "catalog"},
            name=name,
            catalog_source={"keys": [catalog]},
        )
        for name, catalog in (("first", "northpeak"), ("second", "strada"))
    ]
    with load_all(*components) as defs:
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
    with pytest.raises(Exception, match="Error while") as caught, load_all({}, {"catalogs": True}):
        pass
    assert "Two OctogenComponents in this project have the name 'octogen'" in texts(caught.value)


def texts(error: BaseException | None) -> str:
    """The messages of an error and its causes."""
    return "" if error is None else f"{error}\n{texts(error.__cause__)}"


@pytest.mark.slow
def test_a_project_keeps_an_io_manager_and_assets_of_its_own(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    @dg.asset
    def titles(boots: pl.LazyFrame) -> int:
        return boots.select("title").collect().height

    with load(attributes(tmp_path, SEVEN_BOOTS)) as (_, ours):
        own = dg.Definitions(assets=[titles], resources={"io_manager": dg.mem_io_manager})
        result = run(dg.Definitions.merge(ours, own), instance, "boots", "titles")
    assert result.output_for_node("titles") == 7
    (tmp_path / "boots.parquet").unlink()
    with load(attributes(tmp_path, SEVEN_BOOTS, storage=None)) as (_, ours):
        store = od.ParquetSnapshotIOManager(base_dir=str(tmp_path / "own"))
        own = dg.Definitions(resources={"io_manager": store})
        run(dg.Definitions.merge(ours, own), instance, "boots")
    assert files(tmp_path) == {"own/boots.parquet"}


def test_secrets_stay_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MY_KEY")
    monkeypatch.setenv("STORE_SECRET", "hunter2")
    storage = {
        "base_dir": "s3://bucket/{{ env('STAGE', 'dev') }}",
        "storage_options": {"aws_region": "eu", "aws_secret_access_key": "{{ env.STORE_SECRET }}"},
    }
    connection = CONNECTION | {"timeout": "{{ 20 + 2 }}"}
    with load({"connection": connection, "storage": storage}) as (_, defs):
        resources: dict[str, Any] = dict(defs.resources or {})
    octogen, store = resources["octogen"], resources["octogen_io_manager"]
    assert (octogen.api_key, octogen.timeout) == (dg.EnvVar("MY_KEY"), 22)
    assert isinstance(octogen.api_key, dg.EnvVar)
    assert store.base_dir == "s3://bucket/dev"
    assert store.storage_options["aws_region"] == "eu"
    assert isinstance(store.storage_options["aws_secret_access_key"], dg.EnvVar)
    linked = {"project": "p", "principal": "user:me@my.org", "gcp_credentials": "{{ env.KEY }}"}
    linked["token_uri"] = "{{ env.LOGIN }}"
    with load(linked | {"products": True}, LINKED) as (_, defs):
        resources = dict(defs.resources or {})
    for key in ("analytics_hub", "octogen_bigquery"):
        assert isinstance(resources[key].gcp_credentials, dg.EnvVar)
    assert isinstance(resources["octogen_control_plane"].token_uri, dg.EnvVar)


def test_yaml_has_every_field_of_the_resources_and_every_limit_of_the_checks() -> None:
    schema = OctogenComponent.model().model_json_schema()
    fields = {name: set(part.get("properties", ())) for name, part in schema["$defs"].items()}
    checks = set(inspect.signature(od.build_snapshot_checks).parameters) - {"asset"}
    assert fields["ConnectionSettings"] == set(od.OctogenResource.model_fields) - {"catalog_source"}
    assert fields["StorageSettings"] == set(od.ParquetSnapshotIOManager.model_fields)
    assert fields["ProductSearch"] == set(od.ProductSearch.model_fields)
    assert fields["CheckSettings"] == {n for n in checks if n[0] != "_"}


def test_each_field_of_yaml_has_a_description() -> None:
    for component in (OctogenComponent, OctogenLinkedDatasetsComponent):
        schema = component.model().model_json_schema()
        parts = {component.__name__: schema, **schema["$defs"]}
        for name, part in parts.items():
            if name.endswith(("Component", "Settings", "Search")):  # not Dagster's own
                assert all(each.get("description") for each in part["properties"].values()), name


@pytest.mark.parametrize(("sensor", "status"), [(None, "STOPPED"), (True, "STOPPED"), (False, "")])
def test_a_sensor_is_stopped_or_not_there(sensor: bool | None, status: str) -> None:
    search = WHOLE_CATALOGS | ({} if sensor is None else {"sensor": sensor})
    with load({"searches": [search]}) as (_, defs):
        assert [each.default_status.value for each in defs.sensors or ()] == status.split()


def test_a_schedule_may_be_cron_text_and_checks_take_arguments() -> None:
    checks = {"max_age": None, "exclude": ["prices"], "blocking": True}
    with load({"searches": [SEVEN_BOOTS | {"schedule": "@daily", "checks": checks}]}) as (_, defs):
        specs = {spec.name: spec for each in defs.asset_checks or () for spec in each.check_specs}
        schedules: list[Any] = list(defs.schedules or ())
    assert [(each.cron_schedule, each.execution_timezone) for each in schedules] == [
        ("@daily", "UTC")
    ]
    assert not {"fresh", "prices"} & specs.keys()
    assert specs["nulls"].blocking
    with load({"searches": [SEVEN_BOOTS | {"checks": False}]}) as (_, defs):
        assert not list(defs.asset_checks or ())


@pytest.mark.parametrize("text", ["501", "None", "1e5", "[1]", "'a'", "501 {{ 1 }}", "true"])
def test_a_text_stays_a_text(text: str) -> None:
    with load({"searches": [{"name": "boots", "search": {"q": text}}]}) as (_, defs):
        (spec,) = defs.resolve_all_asset_specs()
    assert spec.metadata["octogen/search"].value["q"] == text.replace("{{ 1 }}", "1")


@pytest.mark.slow
def test_dg_describes_the_components_without_heavy_libraries() -> None:
    (entry,) = importlib.metadata.entry_points(
        group="dagster_dg_cli.registry_modules", name="octogen_dagster"
    )
    program = f"""
import sys
from {entry.value} import OctogenComponent, OctogenLinkedDatasetsComponent
for component in (OctogenComponent, OctogenLinkedDatasetsComponent):
    component.model().model_json_schema()
heavy = {{"polars", "google.cloud", "dagster_gcp", "mcp", "pyarrow", "httpx"}}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", program], check=True)
