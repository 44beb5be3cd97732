"""Tests of the linked datasets of a component, which run against a hub and a BigQuery of tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest

from octogen_dagster.bigquery.listing_sources import ExchangeSource, OctogenSource, StaticSource
from octogen_dagster.bigquery.partitions import listing_partition_key
from octogen_dagster.components.linked_settings import LinkedDatasetsSettings
from octogen_dagster.sandbox.server import Sandbox
from tests.bigquery.rest_api import PROJECT, answering, environment
from tests.bigquery.result_server import EXPORTED_AT, UUID, ResultServer
from tests.components.projects import load
from tests.components.runs import files, run

LISTING = "projects/octogen/locations/eu/dataExchanges/catalogs/listings/acme"
EXCHANGE = "projects/octogen/locations/eu/dataExchanges/catalogs"
PRINCIPAL = "serviceAccount:reader@my-project.iam.gserviceaccount.com"


@pytest.fixture
def bigquery() -> ResultServer:
    """A BigQuery that has the view of a catalog."""
    bigquery = ResultServer(fields=[UUID, EXPORTED_AT], rows=[("u1", "1800000000000000")])
    (view,) = bigquery.tables.values()
    name = "octogen_strada.products_current_v1"
    view["tableReference"] |= {"datasetId": "octogen_strada"}
    view["schema"] = {"fields": list(bigquery.fields)}
    bigquery.tables = {name: view}
    return bigquery


@pytest.fixture
def shared(
    bigquery: ResultServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
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


def test_linked_datasets_products_and_snapshots_run(
    shared: Sandbox, bigquery: ResultServer, tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    attributes = {
        "storage": {"base_dir": str(tmp_path)},
        "catalogs": False,
        "linked_datasets": {
            "project": PROJECT,
            "principal": PRINCIPAL,
            "sensor": "running",
            "products": {"columns": ["uuid"], "max_age_hours": None},
            "snapshot": {
                "columns": ["uuid", "exported_at"],
                "modified_column": "exported_at",
                "max_age_hours": 24 * 365 * 100,
            },
        },
    }
    key = listing_partition_key(shared.hub.listing_resource("strada"))
    instance.add_dynamic_partitions("octogen_listings", [key])
    names = ["octogen_linked_datasets", "octogen_linked_snapshot"]
    with load(attributes) as (_, defs):
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


@pytest.mark.parametrize(
    ("source", "expected", "resources"),
    [
        ("octogen", OctogenSource(), {"analytics_hub", "octogen_control_plane"}),
        ({"exchange": EXCHANGE}, ExchangeSource(EXCHANGE), {"analytics_hub"}),
        ({"listings": [LISTING]}, StaticSource([LISTING]), {"analytics_hub"}),
    ],
)
def test_each_source_brings_the_resources_that_it_needs(
    source: Any, expected: object, resources: set[str]
) -> None:
    linked = {"project": PROJECT, "source": source}
    if source == "octogen":
        linked |= {"principal": PRINCIPAL}
    with load({"linked_datasets": linked}) as (component, defs):
        assert component.linked_datasets is not None
        assert component.linked_datasets.listing_source() == expected
        assert set(defs.resources or ()) == {"octogen", "octogen_io_manager", *resources}


@pytest.mark.parametrize(
    ("linked", "message"),
    [
        ({}, "linked_datasets with source: octogen needs principal"),
        (
            {"source": "oktogen"},
            "source is 'oktogen': write octogen, or exchange: ... or listings",
        ),
        ({"source": {}}, "source needs either exchange or listings, or is the word octogen"),
        (
            {"source": {"exchange": EXCHANGE, "listings": [LISTING]}},
            "source needs either exchange or listings, or is the word octogen",
        ),
    ],
)
def test_a_source_that_is_not_clear_is_refused(linked: dict[str, Any], message: str) -> None:
    attributes = {"project": PROJECT, **linked}
    with pytest.raises(Exception, match=message):
        LinkedDatasetsSettings.resolve_from_dict(attributes)
