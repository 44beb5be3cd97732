"""What a reader does with a block of Python or YAML, in a process that is forked for it."""

from __future__ import annotations

import os
import runpy
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
import pytest
from click.testing import CliRunner
from dagster.components.testing import create_defs_folder_sandbox

from octogen_dagster.snapshots.partitions import ADDS_PARTITIONS

NOT_YET = {
    dg.AssetKey("brands"),  # the sandbox's BigQuery stores no result as a table
    *(
        dg.AssetKey(f"competitors_{name}") for name in ("coverage", "offers", "matches")
    ),  # not exported
}
"""Assets that are loaded and not run."""
ARTICLES = """
import dagster as dg
import polars as pl

@dg.asset
def articles() -> pl.DataFrame:
    row = {"sku": "1", "url": "https://acme.com/1", "price": 1.0, "currency": "EUR"}
    return pl.DataFrame([row]).with_columns(product_url="url", map_price="price")
"""
"""The table that a project has and pages name."""
PROJECT = {
    "pyproject.toml": '[tool.dg]\ndirectory_type = "project"\n'
    '[tool.dg.project]\nroot_module = "listed"\n',
    "listed/__init__.py": "",
    "listed/definitions.py": "from pathlib import Path\nimport dagster as dg\n\n"
    "defs = dg.load_from_defs_folder(path_within_project=Path(__file__).parent)\n",
    "listed/defs/__init__.py": "",
    "listed/defs/articles.py": ARTICLES,
    "listed/defs/octogen/defs.yaml": "",
}
"""The files of a Dagster project."""


def read_python(file: Path, environment: Mapping[str, str]) -> None:
    """Run a file: by pytest if its name is that of a test, else as a script.

    Args:
        file: The file; its folder becomes the working directory.
        environment: Variables to set.
    """
    _enter(file.parent, environment)
    if file.name.startswith("test_"):
        sys.exit(pytest.main(["-q", "-p", "no:cacheprovider", "-p", "no:xdist", str(file)]))
    for value in runpy.run_path(str(file)).values():
        if isinstance(value, dg.Definitions):
            materialize_each(value)


def read_yaml(file: Path, environment: Mapping[str, str]) -> None:
    """Put the YAML of a component into a project, and materialize its assets.

    The arguments are those of `read_python`.
    """
    _enter(file.parent, environment)
    with load_component(file.read_text()) as definitions:
        materialize_each(definitions)


def list_definitions(file: Path, environment: Mapping[str, str]) -> None:
    """Put the YAML of a component into a project, and write what dg lists of it to `defs.json`."""
    from dagster_dg_cli.cli import create_dg_cli

    _enter(file.parent, environment)
    for name, text in PROJECT.items():
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(text)
    Path("listed/defs/octogen/defs.yaml").write_text(file.read_text())
    sys.path.insert(0, str(file.parent))
    dg_cli = create_dg_cli()  # type: ignore[no-untyped-call]
    result = CliRunner().invoke(dg_cli, ["list", "defs", "--json"])
    assert result.exit_code == 0, result.output
    Path("defs.json").write_text(result.stdout)


@contextmanager
def load_component(source: str) -> Iterator[dg.Definitions]:
    """Put the YAML of a component into a new project, and yield what it defines."""
    with create_defs_folder_sandbox() as project:
        folder = project.defs_folder_path / "octogen"
        folder.mkdir()
        (folder / "defs.yaml").write_text(source)
        (project.defs_folder_path / "articles.py").write_text(ARTICLES)
        with project.build_all_defs() as definitions:
            yield definitions


def _enter(folder: Path, environment: Mapping[str, str]) -> None:
    """Redirect what the process prints to a file, and set its working directory and variables."""
    log = os.open(folder / "output.txt", os.O_WRONLY | os.O_CREAT)
    os.dup2(log, sys.stdout.fileno())
    os.dup2(log, sys.stderr.fileno())
    os.chdir(folder)
    os.environ.update(environment)


def materialize_each(definitions: dg.Definitions) -> None:
    """Load definitions as a code location, and materialize each asset, upstream ones first.

    Partitions are those that its tables of catalogs and its sensors add.
    """
    dg.Definitions.validate_loadable(definitions)
    repository = definitions.get_repository_def()
    with dg.DagsterInstance.ephemeral() as instance:
        for sensor in repository.sensor_defs:
            if sensor.name.endswith(("_catalog_sensor", "_listing_sensor")):
                _add_partitions(sensor, repository, instance)
        for asset in _runnable(repository):
            partitions_def = repository.asset_graph.get(asset).partitions_def
            keys = partitions_def and partitions_def.get_partition_keys(
                dynamic_partitions_store=instance
            )
            assert keys is None or keys, f"nothing adds partitions of {asset.to_user_string()}"
            job = repository.get_implicit_job_def_for_assets([asset])
            assert job
            job.execute_in_process(
                instance=instance, asset_selection=[asset], partition_key=keys[-1] if keys else None
            )


def _add_partitions(
    sensor: dg.SensorDefinition, repository: dg.RepositoryDefinition, instance: dg.DagsterInstance
) -> None:
    resources = repository.get_top_level_resources()
    with dg.build_sensor_context(
        instance,
        repository_def=repository,
        sensor_name=sensor.name,
        resources={key: resources[key] for key in sensor.required_resource_keys},
    ) as context:
        result = sensor(context)
        assert isinstance(result, dg.SensorResult), result
        for each in result.dynamic_partitions_requests or ():
            assert isinstance(each, dg.AddDynamicPartitionsRequest)
            instance.add_dynamic_partitions(each.partitions_def_name, each.partition_keys)


def _runnable(repository: dg.RepositoryDefinition) -> Iterator[dg.AssetKey]:
    graph = repository.asset_graph
    lists = [
        key for key in graph.toposorted_asset_keys if ADDS_PARTITIONS in graph.get(key).metadata
    ]
    for asset in dict.fromkeys([*lists, *graph.toposorted_asset_keys]):
        if asset in graph.materializable_asset_keys and asset not in NOT_YET:
            yield asset
