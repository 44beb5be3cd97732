"""The sandbox plays the service of today unless an older one is asked for."""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
import httpx
import polars as pl
import pytest
from dagster.components.testing import create_defs_folder_sandbox

from octogen_dagster import OctogenComponent
from octogen_dagster.sandbox.server import Sandbox

ROOT = Path(__file__).parents[2]
COMMAND = Path(sys.executable).with_name("octogen-dagster")


def statuses(environment: Mapping[str, str]) -> dict[str, int]:
    """The statuses of the list of catalogs that the older service has, and of its successor."""
    headers = {"Authorization": f"Bearer {environment['OCTOGEN_PLATFORM_API_KEY']}"}
    base_url = environment["OCTOGEN_BASE_URL"]
    paths = ("/catalogs", "/domains/northpeak.example")
    return {path: httpx.get(base_url + path, headers=headers).status_code for path in paths}


TODAY = {"/catalogs": 404, "/domains/northpeak.example": 200}
OLDER = {"/catalogs": 200, "/domains/northpeak.example": 404}


@contextmanager
def served(*options: str) -> Iterator[dict[str, str]]:
    """Run the command, and yield the variables that it prints."""
    command = [str(COMMAND), "sandbox", "--port", "0", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            assert process.stdout.readline().startswith("# The sandbox listens")
            # Without a hub they are four, the last of which only the service of today has.
            lines = [process.stdout.readline() for _ in range(3)]
            if "seed" not in options:
                lines.append(process.stdout.readline())
            exports = [line.strip().removeprefix("export ").split("=", 1) for line in lines]
            yield dict(exports)
        finally:
            process.terminate()


def test_the_sandbox_of_a_test_is_the_service_of_today() -> None:
    with Sandbox(catalogs=2, products=1) as sandbox:
        assert statuses(sandbox.environment) == TODAY
        assert sandbox.environment["OCTOGEN_SHOPS"] == "harborandpine.example,northpeak.example"
    with Sandbox(catalogs=2, products=1, generation="seed") as older:
        assert statuses(older.environment) == OLDER


def test_the_command_plays_the_service_of_today_and_prints_its_shops() -> None:
    with served("--catalogs", "2", "--products", "120") as environment:
        assert statuses(environment) == TODAY
        assert environment["OCTOGEN_SHOPS"] == "harborandpine.example,northpeak.example"
        estimate = subprocess.run(
            [str(COMMAND), "estimate", "--q", "jacket"],
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
    assert estimate.returncode == 0, estimate.stderr
    assert estimate.stdout.startswith("The search: ")


def test_the_command_plays_the_older_service_if_it_is_asked_for() -> None:
    with served("--catalogs", "2", "--products", "1", "--generation", "seed") as environment:
        assert statuses(environment) == OLDER
        assert "OCTOGEN_SHOPS" not in environment


def test_the_code_location_of_the_checkout_reads_the_sandbox(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with Sandbox(catalogs=2, products=30) as sandbox:
        for name, value in {**sandbox.environment, "OCTOGEN_ENV": "sandbox"}.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("OCTOGEN_SNAPSHOTS", str(tmp_path))
        defs = runpy.run_path(str(ROOT / "definitions.py"))["defs"]
        job = defs.resolve_implicit_global_asset_job_def()
        job.execute_in_process(instance=instance, asset_selection=[dg.AssetKey("octogen_catalogs")])
        job.execute_in_process(
            instance=instance,
            asset_selection=[dg.AssetKey("octogen_products")],
            partition_key="northpeak",
        )
    assert pl.read_parquet(tmp_path / "octogen_products/northpeak.parquet").height == 30


def test_a_project_that_was_scaffolded_for_the_sandbox_reads_whole_catalogs_of_it(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    with Sandbox(products=30) as sandbox, create_defs_folder_sandbox() as project:
        for name, value in sandbox.environment.items():
            monkeypatch.setenv(name, value)
        folder = project.scaffold_component(
            OctogenComponent, "octogen", scaffold_params={"sandbox": True}
        )
        with project.load_component_and_build_defs(folder) as (_, defs):
            job = defs.resolve_implicit_global_asset_job_def()
            job.execute_in_process(
                instance=instance, asset_selection=[dg.AssetKey("octogen_catalogs")]
            )
            assert len(instance.get_dynamic_partitions("octogen_catalogs")) == 5
            job.execute_in_process(
                instance=instance,
                asset_selection=[dg.AssetKey("octogen_products")],
                partition_key="northpeak",
            )
    assert pl.read_parquet("snapshots/octogen_products/northpeak.parquet").height == 30
