"""URL lists of a YAML file are kept equal to assets of the project, and their exports are read."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest

from octogen_dagster import OctogenResource
from octogen_dagster.sandbox.server import Sandbox
from tests.promises.yaml.yaml_projects import LINKED, files, load, run

PROJECT = "my-project"
CHAIN = ("q3_export", "q3_coverage", "q3_offers", "q3_matches")


def test_url_lists_are_kept_equal_to_assets_of_the_project(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    @dg.asset(key=["shop", "articles"], io_manager_key="own_io_manager")
    def articles() -> pl.DataFrame:
        urls = ["https://shop.example/1", "https://shop.example/1/", "nothing"]
        return pl.DataFrame({"sku": ["a", "b", "c"], "url": urls})

    with Sandbox(catalogs={"strada": 5}, url_list_seconds=0) as sandbox:
        attributes = {
            "connection": {"base_url": sandbox.base_url},
            "storage": {"base_dir": str(tmp_path)},
            "url_lists": [
                {"name": "q3", "urls": "shop/articles", "translation": {"tags": {"team": "a"}}},
                {"name": "q4", "urls": "shop/articles", "list_name": "Q 4"},
            ],
        }
        resources = {"own_io_manager": dg.mem_io_manager}
        project = dg.Definitions(assets=[articles], resources=resources)
        with pytest.MonkeyPatch.context() as patch, load(attributes) as (_, defs):
            patch.setenv("OCTOGEN_PLATFORM_API_KEY", sandbox.api_key)
            assert not defs.sensors
            assert set(defs.resources or ()) == {"octogen", "octogen_io_manager"}
            merged = dg.Definitions.merge(project, defs)
            result = run(merged, instance, "shop/articles", "q3", "q4")
            specs = {spec.key.to_user_string(): spec for spec in merged.resolve_all_asset_specs()}
    assert result.success
    assert specs["q3"].tags["team"] == "a"
    assert specs["q3"].automation_condition is not None
    assert {name: specs[name].metadata["octogen/url_list"] for name in ("q3", "q4")} == {
        "q3": "q3",
        "q4": "Q 4",
    }
    assert pl.read_parquet(tmp_path / "q3.parquet")["normalized_url"].to_list() == [
        *["https://shop.example/1"] * 2,
        None,
    ]
    checks = result.get_asset_check_evaluations()
    assert {each.asset_key.to_user_string(): each.passed for each in checks} == {
        "q3": False,
        "q4": False,
    }
    assert files(tmp_path) == {"q3.parquet", "q4.parquet"}


@pytest.mark.slow
def test_what_octogen_exports_of_a_url_list_is_read(
    tmp_path: Path, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Sandbox(catalogs={"strada": 5}, hub=True, url_list_seconds=0) as sandbox:
        for name, value in sandbox.environment.items():
            monkeypatch.setenv(name, value)
        # The BigQuery of an earlier test's server may have left its own, which is gone.
        monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS", raising=False)
        (product, *_) = OctogenResource().search_products(limit=1).items

        @dg.asset(io_manager_key="own_io_manager")
        def articles() -> pl.DataFrame:
            urls = [product.product_url, "https://shop.example/1"]
            return pl.DataFrame({"sku": ["a", "b"], "url": urls})

        place = sandbox.hub.share("strada").split("/")
        coverage = {
            "listing_project": place[1],
            "listing_location": place[3],
            "project": PROJECT,
            "columns": ["product_url", "title"],
            "translation": {"group_name": "lists"},
        }
        attributes = {
            "storage": {"base_dir": str(tmp_path)},
            "url_lists": [{"name": "q3", "urls": "articles", "coverage": coverage}],
            "url_list_sensor": "running",
        }
        resources = {"own_io_manager": dg.mem_io_manager}
        project = dg.Definitions(assets=[articles], resources=resources)
        with load(attributes) as (_, defs):
            assert set(defs.resources or ()) == {*("octogen", "octogen_io_manager", "q3_google")}
            statuses = {each.name: each.default_status for each in defs.sensors or ()}
            merged = dg.Definitions.merge(project, defs)
            run(merged, instance, "articles", "q3")
            sandbox.next_day()
            sensor = merged.resolve_sensor_def("octogen_url_list_sensor")
            octogen = {"octogen": OctogenResource()}
            with dg.build_sensor_context(instance, resources=octogen) as context:
                requested = sensor.evaluate_tick(context).run_requests
            result = run(merged, instance, *CHAIN)
            specs = {spec.key.to_user_string(): spec for spec in merged.resolve_all_asset_specs()}
    assert statuses["octogen_url_list_sensor"] is dg.DefaultSensorStatus.RUNNING
    assert [each.asset_selection for each in requested or ()] == [
        [dg.AssetKey(name) for name in CHAIN]
    ]
    assert result.success
    assert {specs[name].group_name for name in CHAIN} == {"lists"}
    matches = pl.read_parquet(tmp_path / "q3_matches.parquet")
    found = matches.select("sku", "status", "product_url", "title")
    assert found.rows() == [
        ("a", "covered", product.product_url, product.title),
        ("b", "not_covered", None, None),
    ]


def test_a_principal_and_another_account_are_those_of_the_list(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("KEY", "e30=")
    coverage = {
        "project": PROJECT,
        "principal": "user:me@example.com",
        "gcp_credentials": "{{ env.KEY }}",
    }
    lists = [
        {"name": "q3", "urls": "articles", "coverage": coverage},
        {"name": "q4", "urls": "articles", "coverage": "another-project"},
    ]
    attributes = {"connection": {"host": "eu.octogen.ai"}, "url_lists": lists}
    with load(attributes) as (_, own), load({"project": PROJECT, "principal": "a"}, LINKED) as both:
        merged = dg.Definitions.merge(own, both[1])
        dg.Definitions.validate_loadable(
            dg.Definitions.merge(merged, dg.Definitions(assets=[dg.AssetSpec("articles")]))
        )
        resources: dict[str, Any] = dict(merged.resources or {})
    assert resources["q3_control_plane"].host == "eu.octogen.ai"
    assert resources["q4_google"].project == "another-project"
    assert "q4_control_plane" not in resources


WITHOUT = """
import sys
sys.modules.update({"google.cloud.bigquery": None, "mcp": None})
from octogen_dagster.components import OctogenComponent
a_list = {"name": "q3", "urls": "a"}
OctogenComponent.model_validate({"url_lists": [a_list]})
del sys.modules["google.cloud.bigquery"]
OctogenComponent.model_validate({"url_lists": [a_list | {"coverage": "my-project"}]})
"""


def test_a_list_needs_neither_a_login_nor_google_without_what_is_exported() -> None:
    subprocess.run([sys.executable, "-c", WITHOUT], check=True)
