"""The demo: a local Octogen, and two days of the pipeline in `definitions.py`."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
import socket
import subprocess
import sys
import time
import urllib.request
import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
import polars as pl
from rich.console import Console
from rich.table import Table

from octogen_dagster import catalog_partition_key, listing_partition_key, scan_history
from octogen_dagster.sandbox import HOST
from octogen_dagster.sandbox.server import Sandbox

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_DEFINITIONS = "octogen_dagster.demo.definitions"
_PROJECT = "my-project"
_SIZES = {
    "harbor-and-pine": 1.0,
    "northpeak": 0.3,
    "strada": 1.8,
    "kumo": 0.6,
    "grand-arcade": 1.3,
}
"""The catalogs, and their products as a part of the number that was asked for."""
_WRONG_PRICE_FACTOR = 100  # as if the decimal point was lost
_COUNTS = ("appeared", "disappeared", "changed")
_INSTANCE = "telemetry: {enabled: false}\nnux: {enabled: false}\n"
_QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
_START_TIMEOUT = 120
_END_THE_GROUP = 'cat; kill -s TERM -- "-$0"; sleep 2; kill -s KILL -- "-$0"'
"""A shell that ends a group of processes when its own standard input ends."""


def run_demo(folder: Path, *, catalogs: int, products: int, ui_port: int | None) -> None:
    """Snapshot a sandbox into `folder` on two days, and show it in the UI if there is a port.

    On the second day prices moved, products came and went, and one price is wrong. A demo in the
    folder of an earlier one goes on with the days after it. The UI runs until Ctrl-C.
    """
    if ui_port is not None:
        _require_ui(ui_port)
    console = Console(highlight=False)
    home = folder.absolute() / "dagster_home"
    home.mkdir(parents=True, exist_ok=True)
    (home / "dagster.yaml").write_text(_INSTANCE)
    sizes = {key: int(products * size) for key, size in list(_SIZES.items())[:catalogs]}
    with (
        contextlib.suppress(KeyboardInterrupt),
        _make_sandbox(console, sizes) as sandbox,
        dg.DagsterInstance.from_config(str(home)) as instance,
    ):
        console.print(f"A local Octogen runs at {sandbox.base_url}")
        snapshots = home.parent / "snapshots"
        os.environ.update(
            sandbox.environment, DAGSTER_HOME=str(home), OCTOGEN_DEMO_SNAPSHOTS=str(snapshots)
        )
        Demo(console, sandbox, instance, snapshots, list(sizes)).play()
        if ui_port is None:
            console.print(f"In the Dagster UI: {ui_command(os.environ)}", soft_wrap=True)
        else:
            _show_ui(console, home.parent / "dagster.log", ui_port)


def _make_sandbox(console: Console, sizes: dict[str, int]) -> Sandbox:
    """Make a sandbox, with a hub if the packages for it are installed."""
    try:
        return Sandbox(catalogs=sizes, hub=True)
    except ImportError:
        console.print("No linked BigQuery datasets: they need the extras bigquery and mcp.")
        return Sandbox(catalogs=sizes)


class Demo:
    """Two days of the definitions, in runs of this process."""

    def __init__(
        self,
        console: Console,
        sandbox: Sandbox,
        instance: dg.DagsterInstance,
        snapshots: Path,
        catalogs: list[str],
    ) -> None:
        self._console, self._sandbox, self._instance = console, sandbox, instance
        self._snapshots, self._catalogs = snapshots, catalogs
        # The definitions read the environment when they are imported.
        self._assets: Any = importlib.import_module(_DEFINITIONS)
        self._repository = self._assets.defs.get_repository_def()
        self._checks: list[dg.AssetCheckEvaluation] = []

    def play(self) -> None:
        """Play the two days, and print what is there after them."""
        assets = self._assets
        day = len(self._history(assets.products, self._catalogs[0])) + 1
        for _ in range(1, day):
            self._sandbox.next_day()
        self._run(assets.catalogs)
        self._snapshot(day)
        self._link_listings()
        self._lose_decimal_point()
        self._sandbox.next_day()
        self._snapshot(day + 1)
        self._console.print(self._table(day))
        self._print_checks()
        files = self._snapshots / "octogen_products/*.parquet"
        changed = scan_history(str(self._snapshots), asset="octogen_products_history")
        uuid = changed.filter(change="changed").select("uuid").head(1).collect().item()
        self._console.print(
            f"The past of a product: octogen-dagster history --base-dir {self._snapshots} "
            f"--product {uuid}",
            soft_wrap=True,
        )
        self._console.print(f"In Python: polars.read_parquet('{files}')", soft_wrap=True)

    def _snapshot(self, day: int) -> None:
        """Evaluate the catalog sensor once; run what it requests, what follows, and a search."""
        assets = self._assets
        context = dg.build_sensor_context(
            instance=self._instance,
            repository_def=self._repository,
            resources=assets.defs.resources,
        )
        result = assets.catalog_sensor(context)
        requests = getattr(result, "run_requests", None) or []  # else it skips
        self._console.print(f"Day {day}: {len(requests)} catalogs were indexed.")
        for request in requests:
            self._run(
                assets.products,
                assets.changes,
                assets.brands,
                assets.history,
                partition=request.partition_key,
                tags=request.tags,
            )
        self._run(assets.sweaters, assets.sweater_details)

    def _link_listings(self) -> None:
        """Share the catalogs over the sandbox's Analytics Hub, and link them as datasets."""
        linked_datasets = getattr(self._assets, "linked_datasets", None)
        if linked_datasets is None:
            return
        keys = [listing_partition_key(self._sandbox.hub.share(key)) for key in self._catalogs]
        self._instance.add_dynamic_partitions("octogen_listings", keys)
        for key in keys:
            self._run(linked_datasets, partition=key)
        datasets = len(self._sandbox.hub.datasets(_PROJECT))
        self._console.print(f"{datasets} listings of Analytics Hub are linked datasets now.")

    def _run(
        self,
        *assets: dg.AssetsDefinition,
        partition: str | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        keys = [asset.key for asset in assets]
        with self._console.status(f"{keys[0].to_user_string()} {partition or ''}"):
            job = self._repository.get_implicit_job_def_for_assets(keys)
            result = job.execute_in_process(
                instance=self._instance,
                asset_selection=keys,
                partition_key=partition,
                tags=tags,
                run_config=_QUIET,
            )
        self._checks += result.get_asset_check_evaluations()

    def _history(self, asset: dg.AssetsDefinition, catalog: str) -> list[Mapping[str, Any]]:
        """The metadata of the materializations of a catalog, the latest first."""
        partition = catalog_partition_key(catalog)
        records = self._instance.fetch_materializations(
            dg.AssetRecordsFilter(asset.key, asset_partitions=[partition]), limit=1_000
        ).records
        found = (record.asset_materialization for record in records)
        return [each.metadata for each in found if each]

    def _lose_decimal_point(self) -> None:
        """Multiply the highest price of the last catalog by a hundred, for the check of prices."""
        partition = catalog_partition_key(max(self._catalogs))
        prices = (
            pl.read_parquet(self._snapshots / f"octogen_products/{partition}.parquet")
            .filter(pl.col("currency") == pl.col("currency").mode().first())
            .sort("current_price", descending=True, nulls_last=True)
        )
        url, price = prices.select("product_url", "current_price").row(0)
        self._sandbox.set_price(url, price * _WRONG_PRICE_FACTOR)

    def _table(self, day: int) -> Table:
        table = Table("rows of", f"day {day}", f"day {day + 1}", *_COUNTS)
        for column in table.columns[1:]:
            column.justify = "right"
        for catalog in self._catalogs:
            second, first = self._history(self._assets.products, catalog)[:2]
            changes = self._history(self._assets.changes, catalog)[0]
            values = [
                first["dagster/partition_row_count"],
                second["dagster/partition_row_count"],
                *(changes[f"octogen/{name}"] for name in _COUNTS),
            ]
            table.add_row(catalog, *(f"{value.value:,}" for value in values))
        return table

    def _print_checks(self) -> None:
        failed = [check for check in self._checks if not check.passed]
        self._console.print(f"{len(self._checks) - len(failed)} checks passed.")
        for check in failed:
            on_purpose = ", on purpose" if check.check_name == "prices" else ""
            self._console.print(
                f"1 check failed{on_purpose}: {check.description}", markup=False, soft_wrap=True
            )


def ui_command(environment: Mapping[str, str]) -> str:
    """The command that shows the demo in the UI: of a clone run by uv, or where it is installed."""
    clone = Path(__file__).parents[2]
    uv = environment.get("UV")  # set by `uv run`
    if uv and (clone / "pyproject.toml").exists():
        uv = os.path.relpath(uv) if Path(uv).is_relative_to(Path.cwd()) else "uv"
        return f"{uv} run --no-dev --extra sandbox --extra ui octogen-dagster demo --ui"
    if importlib.util.find_spec("dagster_webserver"):
        return "octogen-dagster demo --ui"
    return 'pip install "octogen-dagster[ui]" && octogen-dagster demo --ui'


def _require_ui(port: int) -> None:
    """Refuse a UI that is not installed and a port that is taken, before anything is written."""
    if not importlib.util.find_spec("dagster_webserver"):
        raise SystemExit(
            'The Dagster UI needs dagster-webserver: pip install "octogen-dagster[ui]"'
        )
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise SystemExit(
                f"Port {port} cannot be used for the Dagster UI ({error.strerror}). Choose another "
                f"one: octogen-dagster demo --ui --port {port + 1}"
            ) from error


def _show_ui(console: Console, log: Path, port: int) -> None:
    """Run the UI with its daemon, and say where to look, until it ends or Ctrl-C."""
    url = f"http://{HOST}:{port}"
    with _dagster_dev(log, port) as process:
        with console.status("The Dagster UI starts"):
            _wait_for(f"{url}/server_info", process, log)
        console.print(f"The Dagster UI runs at {url} until Ctrl-C. Where to look:")
        products = f"{url}/assets/octogen_products"
        for page, what in (
            (f"{url}/asset-groups", "the assets, and which follow which"),
            (f"{products}?view=partitions", "a file for each catalog"),
            (f"{products}?view=checks", "the price that is wrong on purpose"),
            (f"{products}_changes?view=partitions", "what came, went and moved"),
            (f"{products}_history?view=partitions", "what each product cost since day 1"),
            (f"{url}/automation", "the sensors that start it all"),
        ):
            console.print(f"  {page}  {what}", soft_wrap=True)
        webbrowser.open(f"{url}/asset-groups")
        process.wait()
    raise SystemExit(f"Dagster ended by itself. Its log is {log}.")


@contextlib.contextmanager
def _dagster_dev(log: Path, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """Run `dagster dev` until the block ends, or until this process does, however it ends."""
    command = ["dagster", "dev", "-h", HOST, "-p", str(port), "-m", _DEFINITIONS]
    with log.open("ab") as output:
        process = subprocess.Popen(  # noqa: S603 - our own command
            [sys.executable, "-m", *command, "--log-level", "warning"],
            env={**os.environ, "PYTHONWARNINGS": "ignore"},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    watcher = subprocess.Popen(  # noqa: S603 - its pipe ends with this process
        ["/bin/sh", "-c", _END_THE_GROUP, str(process.pid)],
        stdin=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        watcher.communicate()
        process.wait()


def _wait_for(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _START_TIMEOUT
    while process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            urllib.request.urlopen(url, timeout=5).close()  # noqa: S310 - ours
            return
        time.sleep(0.2)
    raise SystemExit(f"The Dagster UI did not start. The reason may be in {log}.")
