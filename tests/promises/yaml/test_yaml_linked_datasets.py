"""A YAML file of OctogenLinkedDatasetsComponent runs against a hub and a BigQuery of tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import polars as pl
import pytest

from octogen_dagster import AnalyticsHubResource
from octogen_dagster.bigquery.partitions import listing_partition_key
from octogen_dagster.sandbox.server import Sandbox
from tests.promises.yaml.yaml_projects import LINKED, files, load, load_all, run
from tests.servers.bigquery import (
    EXPORTED_AT,
    PROJECT,
    UUID,
    BigQueryServer,
    answering,
    environment,
)

LISTING = "projects/octogen/locations/eu/dataExchanges/catalogs/listings/acme"
EXCHANGE = "projects/octogen/locations/eu/dataExchanges/catalogs"
PRINCIPAL = "serviceAccount:reader@my-project.iam.gserviceaccount.com"


@pytest.fixture
def bigquery() -> BigQueryServer:
    """A BigQuery that has the view of a catalog."""
    bigquery = BigQueryServer(fields=[UUID, EXPORTED_AT], rows=[("u1", "1800000000000000")])
    (view,) = bigquery.tables.values()
    name = "octogen_strada.products_current_v1"
    view["tableReference"] |= {"datasetId": "octogen_strada"}
    view["schema"] = {"fields": list(bigquery.fields)}
    bigquery.tables = {name: view}
    return bigquery


@pytest.fixture
def shared(
    bigquery: BigQueryServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Sandbox]:
    """A sandbox that shares a catalog, whose view is in BigQuery."""
    with (
        Sandbox(catalogs={"strada": 5}, hub=True, generation="seed") as sandbox,
        answering(bigquery) as address,
    ):
        sandbox.hub.share("strada")
        variables = sandbox.hub.environment | environment(address, address, tmp_path)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        yield sandbox


@pytest.mark.slow
def test_linked_datasets_products_and_snapshots_run(
    shared: Sandbox, bigquery: BigQueryServer, tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    attributes = {
        "project": PROJECT,
        "principal": PRINCIPAL,
        "sensor": "running",
        "products": {"columns": ["uuid"], "max_age": None},
        "snapshot": {
            "columns": ["uuid", "exported_at"],
            "modified_column": "exported_at",
            "max_age": "36500 days",
        },
        "history": True,
        "tables": {"destination": {"duckdb": str(tmp_path / "shop.duckdb")}},
        "storage": {"base_dir": str(tmp_path)},
        "translation": {"owners": ["team:data"]},
    }
    key = listing_partition_key(shared.hub.listing_resource("strada"))
    instance.add_dynamic_partitions("octogen_listings", [key])
    snapshot = "octogen_linked_snapshot"
    names = ["octogen_linked_datasets", snapshot, f"{snapshot}_table"]
    with load(attributes, LINKED) as (_, defs):
        assert all(s.owners == ["team:data"] for s in defs.resolve_all_asset_specs())
        checked = {check.to_user_string() for check in defs.resolve_asset_graph().asset_check_keys}
        assert f"{snapshot}_history:nothing_left_out" in checked
        result = run(defs, instance, *names, partition=key)
        bigquery.fields[:] = [
            {"name": "row_count", "type": "INTEGER"},
            {"name": "last_modified", "type": "TIMESTAMP"},
        ]
        bigquery.rows = [("25", None)]
        run(defs, instance, "octogen_linked_products", partition=key)
        sensors = {sensor.name: sensor.default_status for sensor in defs.sensors or ()}
    assert sensors == {"octogen_listing_sensor": dg.DefaultSensorStatus.RUNNING}
    assert all(each.passed for each in result.get_asset_check_evaluations())
    (file,) = files(tmp_path)
    assert pl.read_parquet(tmp_path / file)["uuid"].to_list() == ["u1"]
    with duckdb.connect(str(tmp_path / "shop.duckdb")) as shop:
        rows = shop.execute(f"SELECT uuid, partition FROM octogen.{snapshot}").fetchall()
    assert rows == [("u1", key)]


@pytest.mark.parametrize(
    ("source", "resources"),
    [
        ({"source": "octogen", "principal": PRINCIPAL}, {"analytics_hub", "octogen_control_plane"}),
        ({"source": {"exchange": EXCHANGE}}, {"analytics_hub"}),
        (
            {"source": {"listings": [LISTING]}, "snapshot": True},
            {"analytics_hub", "octogen_bigquery", "octogen_linked_io_manager"},
        ),
    ],
)
def test_each_source_brings_the_resources_that_it_needs(
    source: dict[str, Any], resources: set[str]
) -> None:
    with load({"project": PROJECT} | source, LINKED) as (_, defs):
        assert set(defs.resources or ()) == resources
        assert [sensor.name for sensor in defs.sensors or ()] == ["octogen_listing_sensor"]


def test_a_project_may_have_a_resource_bigquery_of_its_own() -> None:
    mine = dg.Definitions(resources={"bigquery": AnalyticsHubResource(project="another-project")})
    linked = {"project": PROJECT, "principal": PRINCIPAL, "products": True, "snapshot": True}
    with load(linked, LINKED) as (_, defs):
        merged = dg.Definitions.merge(mine, defs)
        dg.Definitions.validate_loadable(merged)
        assert merged.resources
        assert merged.resources["bigquery"].project == "another-project"


def test_a_project_has_one_of_it() -> None:
    linked = {"project": PROJECT, "principal": PRINCIPAL}
    with (
        pytest.raises(Exception, match="Error while") as caught,
        load_all(linked, linked | {"name": "other"}, type=LINKED),
    ):
        pass
    error: BaseException | None = caught.value
    while error is not None and "two OctogenLinkedDatasetsComponents" not in str(error):
        error = error.__cause__
    assert error is not None


def test_it_stands_beside_the_other_component() -> None:
    with (
        load({"catalogs": True}) as (_, own),
        load({"project": PROJECT, "principal": PRINCIPAL, "snapshot": True}, LINKED) as (_, linked),
    ):
        merged = dg.Definitions.merge(own, linked)
        assert {spec.key.to_user_string() for spec in merged.resolve_all_asset_specs()} == {
            "octogen_catalogs",
            "octogen_linked_datasets",
            "octogen_linked_snapshot",
        }


def test_limits_the_interval_and_ids_are_those_that_were_written(
    shared: Sandbox, bigquery: BigQueryServer, tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    listing = shared.hub.listing_resource("strada")
    attributes = {
        "project": PROJECT,
        "principal": PRINCIPAL,
        "sensor": {"running": True, "minimum_interval_seconds": 600},
        "products": {"columns": ["uuid"], "max_age": None, "max_bytes_billed": 1_000},
        "dataset_id": {listing.replace("projects/octogen", "projects/1234"): "my_strada"},
        "storage": {"base_dir": str(tmp_path)},
    }
    key = listing_partition_key(listing)
    instance.add_dynamic_partitions("octogen_listings", [key])
    with load(attributes, LINKED) as (_, defs):
        result = run(defs, instance, "octogen_linked_datasets", partition=key)
        bigquery.tables = {
            name.replace("octogen_strada", "my_strada"): table
            for name, table in bigquery.tables.items()
        }
        bigquery.fields[:] = [
            {"name": "row_count", "type": "INTEGER"},
            {"name": "last_modified", "type": "TIMESTAMP"},
        ]
        bigquery.rows = [("25", None)]
        run(defs, instance, "octogen_linked_products", partition=key)
        (sensor,) = defs.sensors or ()
    assert isinstance(sensor, dg.SensorDefinition)
    assert sensor.default_status is dg.DefaultSensorStatus.RUNNING
    assert sensor.minimum_interval_seconds == 600
    (materialization,) = result.asset_materializations_for_node("octogen_linked_datasets")
    assert "my_strada" in str(materialization.metadata)
    (inserted,) = bigquery.inserted
    assert inserted["configuration"]["query"]["maximumBytesBilled"] == "1000"
