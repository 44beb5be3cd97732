"""The demo: a sandbox, a Dagster instance, a run for each catalog, and the UI on request."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
import webbrowser
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import dagster as dg
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from octogen_dagster.bigquery.partitions import listing_partition_key, listing_partitions
from octogen_dagster.sandbox.server import Sandbox
from octogen_dagster.sharing.analytics_hub import EMULATOR_VARIABLE
from octogen_dagster.snapshots.partitions import catalog_partition_key

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from octogen_dagster.sandbox.rest.request_bodies import Generation

_INSTANCE_CONFIG = """\
telemetry:
  enabled: false
nux:
  enabled: false
"""
_UI_TIMEOUT = 120


@dataclass(frozen=True, slots=True)
class _Snapshot:
    catalog: str
    rows: int
    uri: str
    seconds: float


@dataclass(frozen=True, slots=True)
class _Link:
    listing: str
    table: str
    state: str


@dataclass(frozen=True, slots=True)
class _Outcome:
    """The snapshots and linked datasets that the runs made, and the reasons of failed runs."""

    snapshots: list[_Snapshot] = field(default_factory=list)
    links: list[_Link] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)


def run_demo(
    folder: Path, *, catalogs: int, products: int, generation: Generation, ui_port: int | None
) -> bool:
    """Snapshot every catalog of a sandbox into `folder`, and subscribe to its listings.

    Args:
        folder: The folder of the snapshots and of the Dagster instance.
        catalogs: The number of catalogs.
        products: The number of products in each.
        generation: The contract that the sandbox follows.
        ui_port: The port of the Dagster UI, which runs until Ctrl-C; None for no UI.

    Returns:
        True if every run succeeded.

    Raises:
        SystemExit: The UI is wanted, and dagster-webserver is not installed.
    """
    home, snapshots = folder.absolute() / "dagster_home", folder.absolute() / "snapshots"
    home.mkdir(parents=True, exist_ok=True)
    (home / "dagster.yaml").write_text(_INSTANCE_CONFIG)
    console = Console()
    with _sandbox(console, catalogs, products, generation) as sandbox:
        environment = {
            **sandbox.environment,
            "DAGSTER_HOME": str(home),
            "OCTOGEN_DEMO_SNAPSHOTS": str(snapshots),
        }
        console.print(f"A sandbox runs at {sandbox.base_url}")
        with _environment(environment):
            outcome = _materialize(console, sandbox)
        console.print(_snapshots_table(outcome.snapshots))
        if outcome.links:
            console.print(_links_table(outcome.links))
        for name, reason in outcome.failed.items():
            console.print(f"[red]{name} failed:[/red] {reason}")
        console.print(f"Snapshots: {snapshots}", soft_wrap=True)
        console.print(
            f"In Python: polars.read_parquet('{snapshots / 'octogen_products'}/*.parquet')",
            soft_wrap=True,
        )
        if ui_port is not None:
            _serve_ui(console, environment, ui_port)
        else:
            console.print("To see the same in the Dagster UI:  octogen-dagster demo --ui")
    return not outcome.failed


def _sandbox(console: Console, catalogs: int, products: int, generation: Generation) -> Sandbox:
    """Make a sandbox, with a hub if the packages for it are installed."""
    try:
        return Sandbox(catalogs=catalogs, products=products, generation=generation, hub=True)
    except ImportError as error:
        console.print(f"No listings: {error}", markup=False, soft_wrap=True)
        return Sandbox(catalogs=catalogs, products=products, generation=generation)


def _materialize(console: Console, sandbox: Sandbox) -> _Outcome:
    from octogen_dagster.demo.definitions import catalogs, defs, linked_datasets, products

    job = defs.resolve_implicit_global_asset_job_def()
    outcome = _Outcome()
    with dg.DagsterInstance.get() as instance, Progress(console=console) as progress:

        def run(
            asset: dg.AssetsDefinition, partition_key: str | None = None
        ) -> tuple[dg.ExecuteInProcessResult, Mapping[str, dg.MetadataValue[Any]] | None]:
            """Materialize an asset; return the result, and the metadata of the materialization."""
            result = job.execute_in_process(
                asset_selection=[asset.key],
                partition_key=partition_key,
                instance=instance,
                run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
                raise_on_error=False,
            )
            if result.success:
                (event,) = result.asset_materializations_for_node(asset.node_def.name)
                return result, event.metadata
            outcome.failed[partition_key or asset.key.to_user_string()] = _reason(result)
            return result, None

        def snapshot(
            asset: dg.AssetsDefinition, partition_key: str | None = None
        ) -> dg.ExecuteInProcessResult:
            started_at = time.monotonic()
            result, metadata = run(asset, partition_key)
            if metadata is not None:
                name = partition_key or asset.key.to_user_string()
                seconds = time.monotonic() - started_at
                outcome.snapshots.append(_snapshot(name, metadata, seconds))
            return result

        task = progress.add_task(catalogs.key.to_user_string(), total=None)
        listed = snapshot(catalogs)
        names = listed.output_for_node(catalogs.node_def.name)["catalog"] if listed.success else ()
        listings = _share(sandbox, names)
        instance.add_dynamic_partitions(str(listing_partitions.name), listings)
        keys = [catalog_partition_key(name) for name in names]
        progress.update(task, total=len(keys) + len(listings))
        for key in keys:
            progress.update(task, description=f"{products.key.to_user_string()}: {key}")
            snapshot(products, key)
            progress.advance(task)
        for listing in listings:
            progress.update(task, description=f"{linked_datasets.key.to_user_string()}: {listing}")
            _, metadata = run(linked_datasets, listing)
            if metadata is not None:
                table, state = metadata["dagster/table_name"], metadata["octogen/state"]
                listing_id = listing.rpartition(":")[2]
                outcome.links.append(_Link(listing_id, str(table.value), str(state.value)))
            progress.advance(task)
        progress.update(task, description="Done")
    return outcome


def _share(sandbox: Sandbox, catalogs: Iterable[str]) -> list[str]:
    """Share catalogs, if the sandbox has a hub; return the partition keys of their listings."""
    if EMULATOR_VARIABLE not in sandbox.environment:
        return []
    return [listing_partition_key(sandbox.hub.share(catalog)) for catalog in catalogs]


def _snapshot(
    name: str, metadata: Mapping[str, dg.MetadataValue[Any]], seconds: float
) -> _Snapshot:
    rows = metadata.get("dagster/partition_row_count") or metadata["dagster/row_count"]
    return _Snapshot(name, rows.value, str(metadata["dagster/uri"].value), seconds)


def _reason(result: dg.ExecuteInProcessResult) -> str:
    """Return why a run failed."""
    for event in result.all_events:
        if event.is_step_failure and event.step_failure_data.error:
            error = event.step_failure_data.error
            return (error.cause or error).message.strip()
    return "see the run in the Dagster UI"


def _snapshots_table(snapshots: list[_Snapshot]) -> Table:
    table = Table("catalog", "rows", "file", "seconds")
    table.columns[1].justify = table.columns[3].justify = "right"
    table.columns[2].overflow = "fold"
    for snapshot in snapshots:
        table.add_row(
            snapshot.catalog,
            f"{snapshot.rows:,}",
            os.path.relpath(snapshot.uri),
            f"{snapshot.seconds:.1f}",
        )
    return table


def _links_table(links: list[_Link]) -> Table:
    table = Table("listing", "linked table", "state")
    table.columns[1].overflow = "fold"
    for link in links:
        table.add_row(link.listing, link.table, link.state)
    return table


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables, and restore them at the end."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _serve_ui(console: Console, environment: Mapping[str, str], port: int) -> None:
    if importlib.util.find_spec("dagster_webserver") is None:
        raise SystemExit('The UI needs dagster-webserver: pip install "octogen-dagster[ui]"')
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "dagster", "dev", "-h", "127.0.0.1", "-p", str(port)]
    command += ["-m", "octogen_dagster.demo.definitions", "--log-level", "warning"]
    # A shell makes background jobs ignore SIGINT, and Dagster would inherit that from them.
    for signal_number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signal_number, signal.default_int_handler)
    server = subprocess.Popen(  # noqa: S603 - our own command
        command, env={**os.environ, **environment, "PYTHONWARNINGS": "ignore"}
    )
    try:
        if _is_up(f"{url}/server_info", server):
            console.print(
                f"The Dagster UI runs at {url}, and the sandbox keeps running: Ctrl-C stops both.",
                soft_wrap=True,
            )
            webbrowser.open(url)
        server.wait()
    except KeyboardInterrupt:
        pass
    finally:
        server.terminate()
        server.wait()


def _is_up(url: str, server: subprocess.Popen[bytes]) -> bool:
    """Wait until `url` responds; return False if the server ends or two minutes pass before."""
    deadline = time.monotonic() + _UI_TIMEOUT
    while server.poll() is None and time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(url, timeout=5):  # noqa: S310 - our own URL
                return True
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.5)
    return False
