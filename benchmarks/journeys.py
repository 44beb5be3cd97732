"""Counts what a reader passes on ARCHITECTURE.md's journeys, and what a public name reaches.

    uv run python -m benchmarks.journeys

A catalog of the sandbox becomes a file, and a listing of the tests' servers, whose login has a
refresh token, becomes a linked dataset: each from the definitions to the end of the run, as in a
user's code location.

A public name is a door. It reaches the files of the package that its own file imports, those that
they import and so on, imports for types included: who is to understand it may have to read them.
"""

from __future__ import annotations

import inspect
import json
import os
import sys
import tempfile
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import dagster as dg
from dagster.components import DefsFolderComponent
from dagster.components.testing import create_defs_folder_sandbox

import octogen_dagster as od
from octogen_dagster import io_source
from octogen_dagster.sandbox.server import Sandbox
from tests.servers.google import Google
from tests.servers.octogen import Octogen
from tests.servers.octogen_mcp import CLIENT, PRINCIPAL, PROJECT
from tests.test_architecture import CAPABILITIES, MODULES, arrows, reached, room_of

PACKAGE = Path(od.__file__).parent
ROOT = f"{PACKAGE}{os.sep}"
CATALOG = "northpeak"
Passed = dict[str, set[str]]
DOORS: dict[str, tuple[str, ...]] = {
    "products and their IO manager": ("build_products_asset", "ParquetSnapshotIOManager"),
    "checks": ("build_snapshot_checks",),
    "brands": ("build_product_brands_asset",),
    "changes": ("build_product_changes_asset",),
    "details": ("build_product_details_asset",),
    "history": ("build_product_history_asset",),
    "alerts": ("build_price_alerts_asset",),
    "position": ("build_price_position_asset",),
    "a table": ("build_table_asset",),
    "a URL list": ("build_url_list_asset",),
    "catalogs": ("build_catalogs_asset",),
    "scan_products": ("scan_products",),
    "scan_history": ("scan_history",),
}


@contextmanager
def counted() -> Iterator[Passed]:
    """Yield the functions that are called in the block, by file, in whichever thread."""
    passed: Passed = defaultdict(set)

    def note(frame: FrameType, event: str, _: Any) -> None:
        code = frame.f_code
        if event != "call" or not code.co_filename.startswith(ROOT):  # most of what is called
            return
        path = Path(code.co_filename)
        has_name = code.co_flags & inspect.CO_OPTIMIZED and code.co_name[0] != "<"  # no class body
        if has_name and "sandbox" not in path.parts:
            passed[str(path.relative_to(PACKAGE))].add(f"{code.co_name} {code.co_firstlineno}")

    def noting(read: Callable[..., Any]) -> Callable[..., Any]:
        def in_a_thread_of_polars(*arguments: Any) -> Any:  # which forgets it after each frame
            sys.setprofile(note)
            for frame in read(*arguments):
                yield frame
                sys.setprofile(note)

        return in_a_thread_of_polars

    def noted_source(read: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        return python_source(noting(read), *arguments, **options)

    python_source = io_source.python_source
    io_source.python_source = noted_source
    threading.setprofile(note)
    sys.setprofile(note)
    try:
        yield passed
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
        io_source.python_source = python_source


def catalog_to_file(instance: dg.DagsterInstance, folder: str) -> None:
    products = od.build_products_asset("products", od.ProductSearch(catalogs=[CATALOG]))
    resources = {
        "octogen": od.OctogenResource(),
        "io_manager": od.ParquetSnapshotIOManager(base_dir=folder),
    }
    assert dg.materialize([products], resources=resources, instance=instance).success


def listing_to_dataset(instance: dg.DagsterInstance, _: str) -> None:
    datasets = od.build_linked_datasets_asset(control_plane=True)
    sensor = od.build_listing_sensor(datasets, od.OctogenSource())
    resources = {
        "analytics_hub": od.AnalyticsHubResource(project=PROJECT),
        "octogen_control_plane": od.OctogenControlPlaneResource(principal=PRINCIPAL),
    }
    definitions = dg.Definitions(assets=[datasets], sensors=[sensor], resources=resources)
    context = dg.build_sensor_context(instance, definitions=definitions, resources=resources)
    result: Any = sensor(context)
    for added in result.dynamic_partitions_requests:
        instance.add_dynamic_partitions(added.partitions_def_name, added.partition_keys)
    (request,) = result.run_requests
    assert dg.materialize(
        [datasets],
        resources=resources,
        instance=instance,
        partition_key=request.partition_key,
        tags=request.tags,
    ).success


def yaml_to_assets(_: dg.DagsterInstance, folder: str) -> None:
    searches = [
        {"name": "products", "partitions": "catalog"},
        {"name": "boots", "search": {"q": "boots"}},
    ]
    attributes = {
        "connection": {"api_key": "{{ env.OCTOGEN_PLATFORM_API_KEY }}"},
        "catalog_source": {"keys": [CATALOG]},
        "storage": {"base_dir": folder},
        "searches": searches,
    }
    contents = {"type": "octogen_dagster.components.OctogenComponent", "attributes": attributes}
    with create_defs_folder_sandbox() as project:
        path = project.scaffold_component(DefsFolderComponent, "octogen")
        (path / "defs.yaml").write_text(json.dumps(contents))
        with project.build_all_defs() as definitions:
            assert len(list(definitions.resolve_all_asset_specs())) == 3


def importers(capability: str) -> list[str]:
    """The files outside of a capability that import one of it."""
    return sorted(
        str(path.relative_to(PACKAGE))
        for module, path in MODULES.items()
        if not module.startswith(f"octogen_dagster.{capability}.")
        if capability in {room_of(name) for name in arrows(module)}
    )


def print_reach() -> None:
    print("reached by imports: files, lines")
    for door, names in DOORS.items():
        modules = reached({getattr(od, name).__module__ for name in names})
        lines = sum(len(MODULES[module].read_text().splitlines()) for module in modules)
        print(f"  {len(modules):3} {lines:7,} {door}")
    found = {capability: importers(capability) for capability in sorted(CAPABILITIES)}
    print(f"files outside of a capability that import it: {sum(map(len, found.values()))}")
    for capability, files in found.items():
        print(f"  {len(files):3} {capability}: {', '.join(files)}")


def main() -> None:
    with (
        Sandbox(catalogs=[CATALOG]) as sandbox,
        Google().running() as analytics_hub,
        Octogen() as octogen,
        dg.instance_for_test() as instance,
        tempfile.TemporaryDirectory() as folder,
    ):
        octogen.rotates = False  # the token of the environment stays valid
        octogen.share("acme")
        os.environ.update(sandbox.environment | octogen.environment)
        os.environ["ANALYTICS_HUB_EMULATOR_HOST"] = analytics_hub
        os.environ["OCTOGEN_MCP_CLIENT_ID"] = CLIENT
        os.environ["OCTOGEN_MCP_REFRESH_TOKEN"] = octogen.refresh_token
        for journey in (catalog_to_file, listing_to_dataset, yaml_to_assets):
            with counted() as passed:
                journey(instance, folder)
            functions = sum(map(len, passed.values()))
            print(f"{journey.__name__}: {len(passed)} files, {functions} functions")
            for file, names in sorted(passed.items()):
                print(f"  {len(names):3} {file}")
    print_reach()  # last, since what is imported on a journey is a part of it


if __name__ == "__main__":
    main()
