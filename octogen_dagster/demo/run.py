"""The demo: a local Octogen, and a Dagster whose sensors read it for two days."""

from __future__ import annotations

import contextlib
import os
import signal
import time
import webbrowser
from typing import TYPE_CHECKING

import dagster as dg
import polars as pl
from rich.console import Console
from rich.progress import Progress

from octogen_dagster.bigquery.partitions import listing_partition_key
from octogen_dagster.demo import definitions
from octogen_dagster.demo.day import (
    Day,
    Target,
    cancel_unfinished_runs,
    wait_for_day,
    wait_for_tick,
)
from octogen_dagster.demo.report import check_lines, links_table, places, snapshots_table
from octogen_dagster.demo.services import HOST, Services, require_ui, running_services
from octogen_dagster.sandbox.catalog import builtin_catalog_keys
from octogen_dagster.sandbox.server import Sandbox
from octogen_dagster.sharing.hub import EMULATOR_VARIABLE
from octogen_dagster.snapshots.partitions import catalog_partition_key

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_DAYS = 2
_WRONG_PRICE_FACTOR = 100
"""What a price is multiplied with whose decimal point was lost."""

_INSTANCE_CONFIG = """\
telemetry:
  enabled: false
nux:
  enabled: false
run_coordinator:
  module: dagster
  class: QueuedRunCoordinator
  config:
    max_concurrent_runs: {runs}
    dequeue_interval_seconds: 1
    dequeue_use_threads: true
    dequeue_num_workers: {runs}
"""


def run_demo(folder: Path, *, catalogs: int, products: int, ui_port: int | None) -> bool:
    """Let Dagster snapshot a sandbox into `folder` and link its listings, for two days.

    On the second day prices moved, products came and went, and one price is wrong. A demo in the
    folder of an earlier one goes on with the days after it.

    With a UI it prints a line that begins with "The Dagster UI runs at http://" when the UI
    responds, and one that begins with "Done." when the days are over.

    Args:
        folder: The folder of the snapshots and of the Dagster instance.
        catalogs: The number of catalogs.
        products: The number of products in each.
        ui_port: The port of the Dagster UI, which runs until Ctrl-C; None for no UI.

    Returns:
        True if every run succeeded.

    Raises:
        SystemExit: The UI is wanted, and dagster-webserver is not installed or the port is taken;
            or Dagster does not start.
    """
    if ui_port is not None:
        require_ui(ui_port)
    folder = folder.absolute()
    home = folder / "dagster_home"
    home.mkdir(parents=True, exist_ok=True)
    runs = max(2, min(4, (os.cpu_count() or 1) // 2))
    (home / "dagster.yaml").write_text(_INSTANCE_CONFIG.format(runs=runs))
    console = Console()
    succeeded = False
    keys = builtin_catalog_keys(catalogs)
    with (
        _interruptible(),
        _make_sandbox(console, keys, products) as sandbox,
        dg.DagsterInstance.from_config(str(home)) as instance,
    ):
        console.print(f"A sandbox runs at {sandbox.base_url}")
        cancel_unfinished_runs(instance)
        demo = _Demo(console, sandbox, instance, folder, keys)
        environment = {
            **sandbox.environment,
            "DAGSTER_HOME": str(home),
            definitions.SNAPSHOTS_VARIABLE: str(demo.snapshots),
        }
        with running_services(
            definitions.__name__, environment, folder / "dagster.log", ui_port=ui_port
        ) as services:
            if ui_port is None:
                succeeded = demo.play(services)
                console.print("To see the same in the Dagster UI:  octogen-dagster demo --ui")
            else:
                url = f"http://{HOST}:{ui_port}"
                services.wait_for_ui(url)
                console.print(
                    f"The Dagster UI runs at {url} until Ctrl-C stops everything.", soft_wrap=True
                )
                webbrowser.open(places(url)[0][0])
                succeeded = demo.play(services)
                console.print("Done. Where to look:")
                for page, what in places(url):
                    console.print(f"  {page}  {what}", soft_wrap=True)
                services.wait()
    return succeeded


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """End the block at SIGINT, SIGTERM and SIGHUP, without an error."""
    numbers = [signal.SIGTERM, signal.SIGINT]  # a shell makes background jobs ignore SIGINT
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # nohup does, to outlive the terminal
        numbers.append(signal.SIGHUP)
    before = {number: signal.signal(number, signal.default_int_handler) for number in numbers}
    try:
        with contextlib.suppress(KeyboardInterrupt):
            yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _make_sandbox(console: Console, catalogs: list[str], products: int) -> Sandbox:
    """Make a sandbox, with a hub if the packages for it are installed."""
    try:
        return Sandbox(catalogs=catalogs, products=products, generation="current", hub=True)
    except ImportError as error:
        console.print(f"No linked datasets: {error}", markup=False, soft_wrap=True)
        return Sandbox(catalogs=catalogs, products=products, generation="current")


class _Demo:
    """A demo in a folder. Its first day begins when it is made, before sensors are evaluated.

    Args:
        console: Where it reports.
        sandbox: The running sandbox.
        instance: The Dagster instance.
        folder: The folder.
        catalogs: The keys of the catalogs.

    Attributes:
        snapshots: The folder of the snapshots.
    """

    def __init__(
        self,
        console: Console,
        sandbox: Sandbox,
        instance: dg.DagsterInstance,
        folder: Path,
        catalogs: list[str],
    ) -> None:
        self.snapshots = folder / "snapshots"
        self._console = console
        self._sandbox = sandbox
        self._instance = instance
        self._partitions = [catalog_partition_key(key) for key in catalogs]
        self._day_file = folder / "day"
        self._day = int(self._day_file.read_text()) if self._day_file.exists() else 0
        self._day_started_at = time.time()
        for _ in range(self._day - 1):
            sandbox.next_day()
        self._listings = []
        if EMULATOR_VARIABLE in sandbox.environment:
            self._listings = [listing_partition_key(sandbox.hub.share(key)) for key in catalogs]
            # A new sandbox has no subscriptions, so the sensor is to request them again.
            instance.wipe_assets([_LINKED_DATASETS])

    def play(self, services: Services) -> bool:
        """Wait until the services did the work of each day; return True if all runs succeeded."""
        days: list[Day] = []
        succeeded = True
        while succeeded and len(days) < _DAYS:
            day = self._play_day(services, is_last=len(days) == _DAYS - 1)
            days.append(day)
            succeeded = not (day.failures or day.missing)
        self._report(days)
        return succeeded

    def _play_day(self, services: Services, *, is_last: bool) -> Day:
        if self._day:
            wait_for_tick(self._instance, definitions.AUTOMATION)
            if is_last:
                self._lose_decimal_point()
            self._day_started_at = time.time()
            self._sandbox.next_day()
        self._day += 1
        self._day_file.write_text(str(self._day))
        expected = self._expected()
        with Progress(console=self._console, transient=True) as bar:
            task = bar.add_task(f"Day {self._day}", total=len(expected))

            def progress(done: int) -> None:
                services.require_running()
                bar.update(task, completed=done)

            day = wait_for_day(self._instance, expected, self._day_started_at, progress)
        done = len(expected) - len(day.missing)
        self._console.print(
            f"Day {self._day}: {done} of {len(expected)} assets and partitions materialized in "
            f"{time.time() - self._day_started_at:.0f} s"
        )
        return day

    def _expected(self) -> set[Target]:
        """What sensors and automation conditions should materialize on this day."""
        each_day = (definitions.products, definitions.changes, definitions.brands)
        once = (definitions.catalogs, definitions.sweaters, definitions.sweater_details)
        at_first: set[Target] = {(asset.key, None) for asset in once} | {
            (_LINKED_DATASETS, listing) for listing in self._listings
        }
        return {(asset.key, key) for asset in each_day for key in self._partitions} | {
            target for target in at_first if not self._was_materialized(target)
        }

    def _was_materialized(self, target: Target) -> bool:
        key, partition = target
        partitions = None if partition is None else [partition]
        records = dg.AssetRecordsFilter(key, asset_partitions=partitions)
        return bool(self._instance.fetch_materializations(records, limit=1).records)

    def _lose_decimal_point(self) -> None:
        """Multiply the highest price of a catalog by a hundred, for the check of prices."""
        folder = self.snapshots / definitions.products.key.path[-1]
        prices = (
            pl.read_parquet(folder / f"{self._partitions[-1]}.parquet")
            .filter(pl.col("currency") == pl.col("currency").mode().first())
            .sort("current_price", descending=True, nulls_last=True)
            .select("product_url", "current_price")
        )
        for url, price in prices.head(1).iter_rows():
            self._sandbox.set_price(url, price * _WRONG_PRICE_FACTOR)

    def _report(self, days: list[Day]) -> None:
        console = self._console
        console.print(snapshots_table(self._partitions, days))
        if self._listings:
            console.print(links_table(_LINKED_DATASETS, self._listings, days[0]))
        for line in check_lines(days):
            console.print(line, markup=False, soft_wrap=True)
        for day in days:
            for name, reason in day.failures.items():
                console.print(f"{name} failed: {reason}", style="red", markup=False, soft_wrap=True)
            for key, partition in sorted(day.missing, key=str):
                name = f"{key.to_user_string()} {partition or ''}".strip()
                console.print(f"{name} was not materialized.", markup=False, soft_wrap=True)
        console.print(f"Snapshots: {self.snapshots}", soft_wrap=True)
        pattern = self.snapshots / definitions.products.key.path[-1] / "*.parquet"
        console.print(f"In Python: polars.read_parquet('{pattern}')", soft_wrap=True)


_LINKED_DATASETS = dg.AssetKey(definitions.LINKED_DATASETS)
