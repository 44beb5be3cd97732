"""Tests of `catalogs_as: assets`: the state, the assets, and what cannot be one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest
from dagster.components.testing.utils import component_defs

from octogen_dagster.components import OctogenComponent
from octogen_dagster.sandbox.server import Sandbox
from tests.components.runs import files, run

SEARCH = {"name": "octogen_products", "partitions": "catalog"}


def component(shops: Sandbox, folder: Path, *searches: dict[str, Any]) -> OctogenComponent:
    return OctogenComponent.from_attributes_dict(
        attributes={
            "connection": {"api_key": "{{ env.MY_KEY }}", "base_url": shops.base_url},
            "catalogs_as": "assets",
            "storage": {"base_dir": str(folder)},
            "searches": list(searches),
        }
    )


def definitions(built: OctogenComponent, state: Path | None) -> dg.Definitions:
    """The definitions with a state, as Dagster builds them after it found the file."""
    with pytest.MonkeyPatch.context() as patch:
        build = type(built).build_defs_from_state
        patch.setattr(OctogenComponent, "build_defs", lambda own, at: build(own, at, state))
        return component_defs(component=built)


def state_of(folder: Path, catalogs: Sequence[object]) -> Path:
    path = folder / "state.json"
    path.write_text(json.dumps(catalogs))
    return path


def keys(defs: dg.Definitions) -> set[str]:
    return {spec.key.to_user_string() for spec in defs.resolve_all_asset_specs()}


def test_each_catalog_of_the_source_is_an_asset_that_runs(
    shops: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, instance: dg.DagsterInstance
) -> None:
    monkeypatch.setenv("MY_KEY", shops.api_key)
    search = SEARCH | {"changes": True, "brands": {"name": "names"}, "schedule": "@daily"}
    built = component(shops, tmp_path, search)
    built.write_state_to_path(tmp_path / "state.json")
    defs = definitions(built, tmp_path / "state.json")
    assert keys(defs) == {
        "octogen_catalogs",
        *(
            f"octogen_products/{catalog}{end}"
            for catalog in ("northpeak", "strada")
            for end in ("", "_changes", "_names")
        ),
    }
    assert not list(defs.sensors or ())
    assert [each.name for each in defs.schedules or ()] == ["octogen_products_schedule"]
    strada = ("octogen_products/strada", "octogen_products/strada_changes")
    result = run(defs, instance, *strada)
    assert all(each.passed for each in result.get_asset_check_evaluations())
    assert files(tmp_path) == {f"{name}.parquet" for name in strada}
    products = pl.read_parquet(tmp_path / "octogen_products/strada.parquet")
    assert set(products["catalog_key"]) == {"strada"}


def test_a_catalog_that_cannot_be_an_asset_does_not_stop_the_others(
    shops: Sandbox, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    entries = [
        {"catalog": "acme-us"},
        {"catalog": "acme_us"},
        {"catalog": "Schöne Schuhe"},
        {"catalog": ""},
        {"displayName": "no key"},
        "acme",
        {"catalog": "strada", "productCount": 3},
    ]
    defs = definitions(component(shops, tmp_path, SEARCH), state_of(tmp_path, entries))
    assert keys(defs) == {
        "octogen_catalogs",
        "octogen_products/acme-us",
        "octogen_products/strada",
    }
    lines = [record.getMessage() for record in caplog.records]
    assert sum("left out a catalog that it cannot read" in line for line in lines) == 3
    (same,) = [line for line in lines if "'acme_us'" in line]
    assert same == (
        "Catalog 'acme_us' cannot be an asset and is left out: Another catalog has the same name, "
        "if - and . are read as _. With catalogs_as: partitions any catalog is read."
    )
    assert any(line.startswith("Catalog 'Schöne Schuhe' cannot be an asset") for line in lines)


def test_without_a_state_the_other_assets_load_and_the_log_says_what_to_do(
    shops: Sandbox, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    boots = {"name": "boots", "search": {"q": "boots"}}
    defs = definitions(component(shops, tmp_path, SEARCH | {"schedule": "@daily"}, boots), None)
    assert keys(defs) == {"octogen_catalogs", "boots"}
    assert not list(defs.schedules or ())
    assert (
        "OctogenComponent 'octogen' knows no catalogs yet, so they are no assets. Run `dg utils "
        "refresh-defs-state`, and load the definitions again."
    ) in caplog.messages


def test_days_stay_partitions(shops: Sandbox, tmp_path: Path) -> None:
    search = {"name": "daily", "partitions": "catalog_day", "start_date": "2026-11-01"}
    state = state_of(tmp_path, [{"catalog": "strada"}])
    defs = definitions(component(shops, tmp_path, search), state)
    partitions = defs.resolve_assets_def(["daily", "strada"]).partitions_def
    assert isinstance(partitions, dg.DailyPartitionsDefinition)


def test_partitions_need_no_state(shops: Sandbox, tmp_path: Path) -> None:
    built = OctogenComponent(searches=[])
    built.write_state_to_path(tmp_path / "state")
    assert (tmp_path / "state").read_text() == "[]"
    assert not shops.requests


YAML = """\
type: octogen_dagster.components.OctogenComponent
attributes:
  connection: {api_key: "{{ env.MY_KEY }}", base_url: "{{ env.MY_URL }}"}
  catalogs_as: assets
  defs_state: {management_type: LOCAL_FILESYSTEM, refresh_if_dev: false}
  storage: {base_dir: snapshots}
  searches: [{name: octogen_products, partitions: catalog}]
"""

DEFINITIONS = """\
from pathlib import Path
from dagster import definitions, load_from_defs_folder

@definitions
def defs():
    return load_from_defs_folder(path_within_project=Path(__file__).parent)
"""


@pytest.mark.slow
def test_dg_refreshes_the_state_and_lists_the_assets(shops: Sandbox, tmp_path: Path) -> None:
    defs = tmp_path / "src" / "shops" / "defs"
    (defs / "octogen").mkdir(parents=True)
    (defs / "octogen" / "defs.yaml").write_text(YAML)
    for folder in (defs, defs.parent):
        (folder / "__init__.py").touch()
    (defs.parent / "definitions.py").write_text(DEFINITIONS)
    (tmp_path / "dg.toml").write_text(
        'directory_type = "project"\n[project]\nroot_module = "shops"\n'
    )
    home = tmp_path / "home"
    home.mkdir()
    (home / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    environment = {
        **os.environ,
        "MY_KEY": shops.api_key,
        "MY_URL": shops.base_url,
        "PYTHONPATH": str(defs.parent.parent),
        "DAGSTER_HOME": str(home),
        "DG_CLI_CONFIG": str(home / "dg.toml"),
    }

    def dg_command(*words: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "dagster_dg_cli.cli", *words],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    assert "OctogenComponent[octogen]" in dg_command("utils", "refresh-defs-state")
    assert '"octogen_products/strada"' in dg_command("list", "defs", "--json")
