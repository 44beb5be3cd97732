"""The demo: Dagster reads thirty days of data from a local sandbox."""

from __future__ import annotations

import contextlib
import fcntl
import importlib
import os
import shutil
import sys
import time
import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
import polars as pl
from rich.console import Console
from rich.table import Table

from octogen_dagster.bigquery.partitions import listing_partition_key
from octogen_dagster.demo.past import begin_day, play_past
from octogen_dagster.demo.processes import DEFINITIONS, DagsterProcess, dagster_process, runner
from octogen_dagster.sandbox import HOST
from octogen_dagster.sandbox.server import Sandbox
from octogen_dagster.snapshots.partitions import catalog_partition_key

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from octogen_dagster.sandbox.listings import Listing

_PROJECT = "my-project"
_SIZES = {
    "harbor-and-pine": 1.0,
    "northpeak": 0.3,
    "strada": 1.8,
    "kumo": 0.6,
    "grand-arcade": 1.3,
}
"""Each catalog's size, as a factor that multiplies the requested number of products."""
_LIVE_DAYS = 2
_DAY_TIMEOUT = 1800  # a day takes half a minute on two idle cores
_WRONG_PRICE_FACTOR = 100  # like a lost decimal point
_COUNTS = ("appeared", "disappeared", "changed")
_PRODUCTS, _LINKED = "octogen_products", "octogen_linked_datasets"
_CHANGES, _HISTORY, _ALERTS = f"{_PRODUCTS}_changes", f"{_PRODUCTS}_history", f"{_PRODUCTS}_alerts"
_FOLLOWED = {
    _CHANGES: _PRODUCTS,
    f"{_PRODUCTS}_brands": _PRODUCTS,
    _HISTORY: _PRODUCTS,
    _ALERTS: _HISTORY,
}
"""Downstream assets, each with its upstream asset."""
_HISTORY_TABLE = f"{_HISTORY}_table"
_TABLES = {f"{_PRODUCTS}_table": _PRODUCTS, _HISTORY_TABLE: _HISTORY}
_PRICE_LIST_ALERTS = f"{_PRODUCTS}_price_list_alerts"
_QUERIES = {
    "Latest changes": "valid_from, change, current_price, title FROM octogen_products_history "
    "ORDER BY valid_from DESC",
    "Price and stock alerts": "at, rule, before, after, title FROM octogen_products_alerts "
    "ORDER BY at DESC",
    "Competitors below your prices": "at, rule, sku, before, after "
    "FROM octogen_products_price_list_alerts ORDER BY at",
}
"""SQL queries to try, by subject."""
_URL_LIST, _COMPARISON = "competitor_urls", "price_comparison"
_MATCHES = "competitor_matches"
_WINDOWS = {"DISPLAY", "WAYLAND_DISPLAY", "BROWSER"}
"""Environment variables that are set on systems with a graphical browser."""
_MESSAGES = "notifications.txt"
_WRITTEN = ("snapshots", "shop.duckdb", "dagster.log", "dagster_home", _MESSAGES)
INSTANCE = """
telemetry: {enabled: false}
nux: {enabled: false}
# The daemon executes runs in its own process: a process for each would take five CPU seconds.
run_launcher:
  module: dagster._core.launcher.sync_in_memory_run_launcher
  class: SyncInMemoryRunLauncher
"""


def run_demo(folder: Path, *, catalogs: int, products: int, days: int, port: int | None) -> None:
    """Simulate a number of days. If a port is given, run the Dagster UI until Ctrl-C.

    Every day, prices change and products appear and disappear. A competitor undercuts the price
    list on day 3 and the floor price on day 5, and the last day has a wrong price. All days except
    the last two are backdated.
    """
    console = Console(highlight=False)
    home, snapshots = folder.absolute() / "dagster_home", folder.absolute() / "snapshots"
    log = folder.absolute() / "dagster.log"
    sizes = {key: max(1, int(products * size)) for key, size in list(_SIZES.items())[:catalogs]}
    with (
        contextlib.suppress(KeyboardInterrupt),
        _fresh_folder(folder),
        _make_sandbox(console, sizes) as sandbox,
        dg.DagsterInstance.from_config(str(home)) as instance,
        contextlib.ExitStack() as processes,
    ):
        console.print(f"A local Octogen service is running at {sandbox.base_url}.")
        os.environ.pop("GOOGLE_APPLICATION_CREDENTIALS", None)  # the local BigQuery needs none
        os.environ.update(
            sandbox.environment, DAGSTER_HOME=str(home), OCTOGEN_DEMO_SNAPSHOTS=str(snapshots)
        )
        if port:
            command = ("dagster_webserver", "-h", HOST, "-p", str(port))
            url = f"http://{HOST}:{port}"
            ui = processes.enter_context(dagster_process(log, *command))
            with console.status("The Dagster UI is starting"):
                ui.wait_for_ui(url)
            console.print(f"The Dagster UI is running at {url}. Open it to watch the simulation.")
            # Elsewhere a text browser would open and take over the terminal.
            if sys.platform == "darwin" or os.environ.keys() & _WINDOWS:
                webbrowser.open(f"{url}/assets/{_PRODUCTS}?view=partitions")
        past = days - _LIVE_DAYS
        play_past(console, sandbox, instance, snapshots, catalogs=list(sizes), days=past)
        demo = Demo(console, sandbox, instance, snapshots, list(sizes))
        if past:
            begin_day(sandbox, snapshots, days - 1)
        began = time.time()
        daemon = processes.enter_context(dagster_process(log, "dagster._daemon", "run"))
        demo.play(days - 1, began, daemon)
        demo.lose_decimal_point()
        began = time.time()
        begin_day(sandbox, snapshots, days)
        demo.play(days, began, daemon)
        demo.report(days)
        if port:
            demo.print_pages(url)
            ui.wait()


@contextlib.contextmanager
def _fresh_folder(folder: Path) -> Iterator[None]:
    """Lock the folder and delete the files of an earlier demo.

    Raise an error if the folder contains anything else.
    """
    folder.mkdir(parents=True, exist_ok=True)
    home, held = folder / "dagster_home", os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(held)
        raise SystemExit(
            f"Another demo is running in {folder}. Stop it, or choose another folder with --dir."
        ) from None
    try:
        written = [folder / name for name in _WRITTEN if (folder / name).exists()]
        instance = home / "dagster.yaml"
        if written and not (instance.exists() and instance.read_text() == INSTANCE):
            raise SystemExit(
                f"{written[0]} already exists and was not created by a demo. Choose "
                "another folder with --dir."
            )
        for each in written:
            shutil.rmtree(each) if each.is_dir() else each.unlink()
        home.mkdir()
        instance.write_text(INSTANCE)
        yield
    finally:
        os.close(held)


def _make_sandbox(console: Console, sizes: dict[str, int]) -> Sandbox:
    """Start a sandbox. Include an Analytics Hub if the required packages are installed."""
    try:
        return Sandbox(catalogs=sizes, hub=True)
    except ImportError:
        console.print(
            "Linked BigQuery datasets were skipped, because they require the `bigquery` and `mcp` "
            "extras."
        )
        return Sandbox(catalogs=sizes)


class Demo:
    """Waits for Dagster's materializations on each simulated day, and prints the results."""

    def __init__(
        self,
        console: Console,
        sandbox: Sandbox,
        instance: dg.DagsterInstance,
        snapshots: Path,
        catalogs: Sequence[str],
    ) -> None:
        self._console, self._sandbox, self._instance = console, sandbox, instance
        self._snapshots, self._catalogs = snapshots, catalogs
        self._runner = runner(os.environ)
        self._partitions = [catalog_partition_key(catalog) for catalog in catalogs]
        definitions: Any = importlib.import_module(DEFINITIONS)  # reads the environment
        self._followed = _FOLLOWED | (_TABLES if definitions.HAS_DUCKDB else {})
        shared = [sandbox.hub.share(each) for each in catalogs if definitions.HAS_HUB]
        self._listings = {listing_partition_key(name): name for name in shared}

    def play(self, day: int, began: float, daemon: DagsterProcess) -> None:
        """Wait until the daemon has materialized the products and all downstream assets.

        Products belong to the day if they were read after `began`, a Unix timestamp.
        """
        earlier = {run.run_id for run in self._instance.get_runs()}
        with self._console.status(f"Day {day}: the sensors request runs"):
            while True:
                runs = self._instance.get_runs()
                is_done = all(self._done_since(began)) and all(run.is_finished for run in runs)
                if is_done:
                    break
                failed = any(run.is_failure and run.run_id not in earlier for run in runs)
                if failed or time.time() > began + _DAY_TIMEOUT:
                    raise SystemExit(
                        f"Day {day} did not complete. See {daemon.log} for the reason."
                    )
                daemon.check()
                time.sleep(0.5)
        self._say(f"Day {day}: {len(self._catalogs)} catalogs were re-indexed and read.")

    def report(self, day: int) -> None:
        """Print the day's results, and commands that show more."""
        if self._listings and (count := len(self._sandbox.hub.datasets(_PROJECT))):
            self._say(f"{count} Analytics Hub listings have linked datasets.")
            self._print_url_list()
        self._console.print(self._table(day))
        self._print_checks()
        for line in self._notifications():
            self._say(f"Alert sensor: {line}")
        folder = os.path.relpath(self._snapshots)
        command = f"{self._runner}octogen-dagster"
        query = f"{command} sql --base-dir {folder}"
        self._say(f"Stored tables: {query}")
        for what, select in _QUERIES.items():
            self._say(f'{what}: {query} "SELECT {select}"')
        if _HISTORY_TABLE in self._followed:
            shop = f"duckdb.connect('{os.path.relpath(self._snapshots.with_name('shop.duckdb'))}')"
            rows = f"{shop}.sql('FROM octogen.{_HISTORY} WHERE NOT is_current')"
            self._say(f'In SQL: {self._runner}python -c "import duckdb; print({rows})"')
        else:
            self._say("DuckDB tables were skipped, because they require the `duckdb` extra.")
        rows = f"polars.read_parquet('{folder}/{_PRODUCTS}/*.parquet')"
        self._say(f'In Python: {self._runner}python -c "import polars; print({rows})"')

    def print_pages(self, url: str) -> None:
        """Print links to pages in the UI that show the results."""
        catalog = f"partition={catalog_partition_key(max(self._catalogs))}"
        assets = f"{url}/assets/{_PRODUCTS}"
        compared = (f"{url}/assets/{_COMPARISON}", "your prices next to prices from a URL list")
        self._say("Pages to visit:")
        for page, what in (
            (url, "the runs and the sensors that requested them"),
            (f"{url}/asset-groups", "the asset graph"),
            (f"{assets}?view=partitions&{catalog}", "one catalog: its file and products"),
            (f"{assets}?view=checks&checkDetail=prices", "the deliberately wrong price"),
            (
                f"{assets}_changes?view=partitions&{catalog}",
                "products that appeared, disappeared or changed",
            ),
            (f"{assets}_history?view=partitions&{catalog}", "every product's price since day 1"),
            (f"{assets}_alerts?view=partitions&{catalog}", "price and stock alerts"),
            (f"{assets}_price_list_alerts?view=events", "competitors below your price or floor"),
            (f"{assets}_position", "your price position"),
            *([compared] if self._listings else []),
            (f"{url}/automation", "the sensors that request the runs"),
        ):
            self._say(f"  {page}  {what}")
        self._say("The demo keeps running until you press Ctrl-C.")

    def _done_since(self, began: float) -> Iterator[bool]:
        """For each asset, yield whether the asset has been materialized on this day."""
        for partition in self._partitions:
            yield self._made_at(_PRODUCTS, partition) > began
            for name, followed in self._followed.items():
                yield self._made_at(name, partition) > self._made_at(followed, partition)
        yield bool(self._records("sweaters_details", None))
        yield self._is_followed_by(f"{_PRODUCTS}_position")
        yield self._is_followed_by("articles", "articles_history", _PRICE_LIST_ALERTS)
        yield len(self._notifications()) >= len(
            pl.read_parquet(self._snapshots / f"{_PRICE_LIST_ALERTS}.parquet")
        )
        yield from (bool(self._records(_LINKED, key)) for key in self._listings)
        if self._listings:
            yield self._is_followed_by("articles", "matches", _URL_LIST)
        if any(listing.views() for listing in self._url_lists()):
            for name in (_MATCHES, _COMPARISON):
                yield self._made_at(name, None) > began

    def _notifications(self) -> list[str]:
        """Return the lines that the price-list alert sensor has written."""
        file = self._snapshots.with_name(_MESSAGES)
        return file.read_text().splitlines() if file.exists() else []

    def _is_followed_by(self, *names: str) -> bool:
        """Return True if the assets were materialized after the history, in the given order."""
        last = max(self._made_at(_HISTORY, partition) for partition in self._partitions)
        times = [last, *(self._made_at(name, None) for name in names)]
        return times == sorted(times)

    def _url_lists(self) -> list[Listing]:
        """Return the listings for URL lists."""
        listings = self._sandbox.hub.listings if self._listings else ()
        return [listing for listing in listings if listing.is_url_list]

    def _made_at(self, asset: str, partition: str | None) -> float:
        """Return the time when an asset was last materialized, or 0 if it never was."""
        return next((each.timestamp for each in self._records(asset, partition)), 0.0)

    def _records(self, asset: str, partition: str | None, limit: int = 1) -> Sequence[Any]:
        """Return an asset's latest materializations, newest first."""
        partitions = [partition] if partition else None
        wanted = dg.AssetRecordsFilter(dg.AssetKey(asset), asset_partitions=partitions)
        return self._instance.fetch_materializations(wanted, limit=limit).records

    def lose_decimal_point(self) -> None:
        """Multiply the last catalog's highest price by 100 to make a check fail."""
        partition = catalog_partition_key(max(self._catalogs))
        prices = (
            pl.read_parquet(self._snapshots / f"{_PRODUCTS}/{partition}.parquet")
            .filter(pl.col("currency") == pl.col("currency").mode().first())
            .drop_nulls("current_price")
            .sort("current_price", descending=True)
        )
        for url, price in prices.select("product_url", "current_price").head(1).rows():
            self._sandbox.set_price(url, price * _WRONG_PRICE_FACTOR)

    def _table(self, day: int) -> Table:
        table = Table("catalog", f"day {day - 1}", f"day {day}", *_COUNTS)
        for column in table.columns[1:]:
            column.justify = "right"
        for catalog, partition in zip(self._catalogs, self._partitions, strict=True):
            [changes] = self._records(_CHANGES, partition)
            counts = {
                name: int(entry.value)
                for name, entry in changes.asset_materialization.metadata.items()
                if name.removeprefix("octogen/") in _COUNTS
            }
            [products] = self._records(_PRODUCTS, partition)
            rows = int(products.asset_materialization.metadata["dagster/partition_row_count"].value)
            appeared, disappeared, changed = (counts[f"octogen/{name}"] for name in _COUNTS)
            values = (rows - appeared + disappeared, rows, appeared, disappeared, changed)
            table.add_row(catalog, *(f"{value:,}" for value in values))
        return table

    def _print_checks(self) -> None:
        """Print the check results from the latest run of each catalog."""
        names = (_PRODUCTS, *self._followed)
        latest = (self._records(name, key)[0] for name in names for key in self._partitions)
        passed = 0
        for run_id in dict.fromkeys(record.run_id for record in latest):
            evaluations = self._instance.all_logs(
                run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION
            )
            for entry in evaluations:
                check: Any = entry.get_dagster_event().event_specific_data
                passed += check.passed
                if not check.passed:
                    why = ", on purpose" if check.check_name == "prices" else ""
                    self._say(f"1 check failed{why}: {check.description}")
        self._say(f"{passed} checks passed.")

    def _print_url_list(self) -> None:
        """Print how many competitor URLs Octogen covers, and how many prices are below yours."""
        if self._records(_COMPARISON, None):
            matches = pl.read_parquet(self._snapshots / f"{_MATCHES}.parquet")
            pages = matches.drop_nulls("sku").unique(["sku", "url"])
            covered = pages.filter(status="covered").height
            prices = pl.read_parquet(self._snapshots / f"{_COMPARISON}.parquet")
            lower = prices.filter(pl.col("difference") > 0).height
            self._say(
                f"Octogen covers {covered:,} of {len(pages):,} competitor URLs in a URL list. "
                f"{lower:,} of {len(prices):,} prices at these URLs are below your prices."
            )

    def _say(self, text: str) -> None:
        self._console.print(text, markup=False, soft_wrap=True)
