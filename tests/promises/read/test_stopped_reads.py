"""A read whose server is silent ends within seconds when it is interrupted or the process exits."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from octogen_dagster import OctogenClient
from octogen_dagster.api.spending import Spending
from octogen_dagster.errors import OctogenBudgetError
from tests.api.servers import KEY, POLL_SECONDS, RawServer, Received, http, page
from tests.histories import ASSET, day, make_history, product
from tests.results import octogen_at

ENDING_SECONDS = 25
"""The promise is two seconds; a busy machine takes longer, and a broken promise 30 or more."""
START_SECONDS = 300
"""A busy machine takes long to start a run."""


class SilentServer(RawServer):
    """Says when it has received a request, and never responds."""

    def __init__(self) -> None:
        self.asked = Event()
        super().__init__(self._wait)

    def _wait(self, _: Received) -> Iterator[bytes]:
        self.asked.set()
        self.closing.wait(START_SECONDS)
        yield b""


@pytest.fixture
def server() -> Iterator[SilentServer]:
    with SilentServer() as running:
        yield running


SCAN = f"""
import sys, threading
from octogen_dagster import ProductSearch, ShopCatalogs, scan_products

url, what, *catalogs = sys.argv[1:]
frame = scan_products(
    ProductSearch(catalogs=catalogs),
    api_key={KEY!r},
    base_url=url,
    catalog_source=ShopCatalogs(hosts=[f"shop-{{n}}.example" for n in range(40)])
    if what == "shops"
    else None,
)
if what == "head":
    frame = frame.head(5)
"""
COLLECT = SCAN + "frame.collect()"
SINK = SCAN + "frame.sink_parquet('/dev/null')"


def start(program: str, server: SilentServer, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", program, server.base_url, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.long
@pytest.mark.parametrize(
    ("program", "arguments"),
    [
        (COLLECT, ["list"]),
        (COLLECT, ["shops"]),
        (COLLECT, ["pages", "acme", "zen"]),
        (COLLECT, ["head", "acme"]),
        (SINK, ["pages", "acme"]),
    ],
    ids=["list of catalogs", "shops", "pages", "head", "file"],
)
def test_ctrl_c_ends_a_script(server: SilentServer, program: str, arguments: list[str]) -> None:
    with start(program, server, *arguments) as process:
        try:
            assert server.asked.wait(START_SECONDS)
            process.send_signal(signal.SIGINT)
            process.wait(ENDING_SECONDS)
        finally:
            process.kill()
    assert process.returncode in (-signal.SIGINT, 1)


RUN = f"""
import os, signal, sys, threading
import dagster as dg
from octogen_dagster import *
from octogen_dagster.schemas import PRODUCT_SCHEMA

def cancel():  # as Dagster's launcher does
    if sys.stdin.readline():
        instance.report_run_canceling(instance.get_runs()[0])
        os.kill(os.getpid(), signal.SIGINT)

@dg.asset
def listed():
    import polars as pl
    row = {{"uuid": "1", "product_url": "https://acme.example/1"}}
    return pl.DataFrame([row], schema=PRODUCT_SCHEMA)

def products(name, **policy):
    return build_products_asset(name, ProductSearch(catalogs=["acme"]), **policy)

url, folder, what = sys.argv[1:]
build = {{
    "products": products,
    "products without a retry policy": lambda name: products(name, retry_policy=None),
    "details": lambda name: build_product_details_asset(listed, name=name),
    "datasets": build_linked_datasets_asset,
}}[what]
assets = [build(name) for name in ("first", "second")]
resources = {{
    "octogen": OctogenResource(api_key={KEY!r}, base_url=url),
    "io_manager": ParquetSnapshotIOManager(base_dir=folder),
    "analytics_hub": AnalyticsHubResource(project="p", endpoint=url.split("/")[2]),
}}
threading.Thread(target=cancel, daemon=True).start()
with dg.DagsterInstance.local_temp(folder) as instance:
    instance.add_dynamic_partitions("octogen_listings", ["p:us:e:acme"])
    dg.materialize([listed], resources=resources, instance=instance)
    result = dg.materialize(
        [listed, *assets],
        selection=assets,
        resources=resources,
        instance=instance,
        partition_key="p:us:e:acme" if what == "datasets" else None,
        raise_on_error=False,
    )
    events = [event.event_type_value for event in result.all_events]
    assert "STEP_FAILURE" in events and "STEP_UP_FOR_RETRY" not in events, events
    assert events.count("STEP_START") == 1, events
    print(instance.get_run_by_id(result.run_id).status.value)
"""


@pytest.mark.long
@pytest.mark.parametrize(
    "what", ["products", "products without a retry policy", "details", "datasets"]
)
@pytest.mark.parametrize("end", ["SIGINT", "SIGTERM", "cancel"])
def test_a_run_that_is_interrupted_or_canceled_ends_and_is_not_retried(
    server: SilentServer, tmp_path: Path, end: str, what: str
) -> None:
    is_canceled = end == "cancel"
    with start(RUN, server, str(tmp_path), what) as process:
        try:
            assert server.asked.wait(START_SECONDS)
            if not is_canceled:
                process.send_signal(signal.Signals[end])
            status, errors = process.communicate(
                "cancel\n" if is_canceled else None, timeout=ENDING_SECONDS + 5
            )
        finally:
            process.kill()
    assert process.returncode == 0, errors
    # Dagster retries runs of the status FAILURE only.
    assert status.strip() == ("CANCELED" if is_canceled else "FAILURE")
    assert is_canceled or "The run was interrupted." in errors
    assert [path.stem for path in tmp_path.rglob("*.parquet")] == ["listed"]


PUT_IN_SECONDS = 60
"""A busy machine takes long to put in the snapshot at which it is stopped; a year takes minutes."""
CATCHING_UP = """
import os, sys
from datetime import datetime, timedelta, timezone
import dagster as dg
import polars as pl
from octogen_dagster import *
from octogen_dagster.schemas import PRODUCT_SCHEMA

folder = sys.argv[1]
days = dg.DailyPartitionsDefinition("2026-01-01", end_date="2027-01-01")

@dg.asset(partitions_def=days)
def products() -> pl.DataFrame: ...

os.makedirs(f"{folder}/products")
missing = {name: pl.lit(None, kind) for name, kind in PRODUCT_SCHEMA.items()}
for number, day in enumerate(days.get_partition_keys()):
    # After the first day the large catalog is withheld, which ends none of its rows.
    catalog, count = ("small", 10) if number else ("large", 1_000_000)
    at = datetime(2026, 1, 1, 12, tzinfo=timezone.utc) + timedelta(days=number)
    uuids = pl.select(uuid=pl.int_range(count).cast(pl.String))
    given = {"catalog_key": pl.lit(catalog), "product_url": "uuid", "fetched_at": pl.lit(at)}
    snapshot = uuids.with_columns(**missing | given | {"uuid": "uuid"}).select(*PRODUCT_SCHEMA)
    metadata = {"octogen.fetched_at": at.isoformat()}
    snapshot.write_parquet(f"{folder}/products/{day}.parquet", metadata=metadata)

history = build_product_history_asset(products)
dg.materialize(
    [products, history],
    selection=[history],
    resources={"io_manager": ParquetSnapshotIOManager(base_dir=folder)},
)
"""


def wait_until_written(process: subprocess.Popen[bytes], folder: Path) -> None:
    """Wait until a run waits for the rows of a file, which it keeps young meanwhile."""
    times = set[int]()
    ends_at = time.monotonic() + START_SECONDS
    while len(times) < 3:
        times.update(path.stat().st_mtime_ns for path in folder.glob(".*.unfinished"))
        assert time.monotonic() < ends_at
        assert process.poll() is None


@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_history_that_catches_up_ends(tmp_path: Path, number: signal.Signals) -> None:
    with subprocess.Popen([sys.executable, "-c", CATCHING_UP, str(tmp_path)]) as process:
        try:
            wait_until_written(process, tmp_path)
            process.send_signal(number)
            process.wait(PUT_IN_SECONDS)
        finally:
            process.kill()
    assert process.returncode != 0
    assert not (tmp_path / "products_history.parquet").exists()


FORGETTING = """
import itertools, signal, sys
from datetime import datetime
from octogen_dagster.history.files import forget_snapshot
from octogen_dagster.history import files

def endless(history, *_):
    print("begun", flush=True)
    rows = history.head(1).collect()
    return itertools.repeat(rows)

files.take_out = endless
signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGINT))  # as Dagster does
folder, asset, at = sys.argv[1:]
forget_snapshot(folder, datetime.fromisoformat(at), asset=asset)
"""


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_snapshot_that_is_being_forgotten_stays(tmp_path: Path, number: signal.Signals) -> None:
    make_history(tmp_path, {day(1): [product("shoe", 10.0)]})
    (file,) = (tmp_path / ASSET).glob("*.parquet")
    there, before = set(file.parent.iterdir()), file.read_bytes()
    with subprocess.Popen(
        [sys.executable, "-c", FORGETTING, str(tmp_path), ASSET, day(1).isoformat()],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout
            assert process.stdout.readline() == "begun\n"
            process.send_signal(number)
            _, errors = process.communicate(timeout=ENDING_SECONDS)
        finally:
            process.kill()
    assert process.returncode in (-signal.SIGINT, 1), errors
    assert [file.read_bytes()] == [before]
    assert set(file.parent.iterdir()) == there


# A request that blocks its thread ends at once when it is interrupted. If the service has it and
# has not answered, it might be charged.


ONE_PAGE_USD = 0.014
BUDGET_USD = 0.03
"""It allows two pages."""


class BusyServer(RawServer):
    """Keeps the first request waiting in some way, and answers all others."""

    def __init__(self, keep_waiting: Callable[[RawServer], Iterable[bytes]]) -> None:
        self.asked = threading.Event()
        super().__init__(lambda _: self._respond(keep_waiting))

    def _respond(self, keep_waiting: Callable[[RawServer], Iterable[bytes]]) -> Iterable[bytes]:
        is_first = not self.asked.is_set()
        self.asked.set()
        return keep_waiting(self) if is_first else http(200, page(["a"]))


def silent(server: RawServer) -> Iterator[bytes]:
    server.closing.wait(POLL_SECONDS)
    yield b""


def dripping(server: RawServer) -> Iterator[bytes]:
    yield b"HTTP/1.1 200 OK\r\nx-slow: "
    while not server.closing.wait(0.1):
        yield b"x"


def rate_limited(_: RawServer) -> Iterable[bytes]:
    return http(429, {"detail": "rate_limit_exceeded"}, retry_after="100")


waits = pytest.mark.parametrize(
    ("keep_waiting", "pages_left"), [(silent, 1), (dripping, 1), (rate_limited, 2)]
)


@contextmanager
def interrupted_once_asked(server: BusyServer) -> Iterator[None]:
    """Raise KeyboardInterrupt in the main thread soon after the server was asked."""
    assert threading.current_thread() is threading.main_thread()

    def interrupt(*_: Any) -> None:
        if server.asked.is_set():
            signal.setitimer(signal.ITIMER_REAL, 0)
            raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.3, 0.3)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@waits
def test_an_interrupt_ends_a_request_that_might_be_charged(
    keep_waiting: Any, pages_left: int
) -> None:
    with BusyServer(keep_waiting) as server:
        octogen = octogen_at(server, budget_usd=BUDGET_USD, timeout=POLL_SECONDS)
        began = time.monotonic()
        with interrupted_once_asked(server), pytest.raises(KeyboardInterrupt):
            octogen.search_products()
        assert time.monotonic() - began < 90
        for _ in range(pages_left):
            assert octogen.search_products().uuids == ["a"]
        with pytest.raises(OctogenBudgetError):
            octogen.search_products()
    assert float(octogen.spending.spent_usd) == pages_left * ONE_PAGE_USD


def slow_body(server: RawServer) -> Iterator[bytes]:
    yield b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n"
    while not server.closing.wait(0.1):
        yield b" "


def test_a_page_that_has_begun_to_come_is_charged_although_it_is_interrupted() -> None:
    with BusyServer(slow_body) as server:
        octogen = octogen_at(server)
        with interrupted_once_asked(server), pytest.raises(KeyboardInterrupt):
            octogen.search_products()
        assert float(octogen.spending.spent_usd) == ONE_PAGE_USD


@waits
async def test_a_cancelled_task_might_be_charged(keep_waiting: Any, pages_left: int) -> None:
    spending = Spending(budget_usd=BUDGET_USD)
    with BusyServer(keep_waiting) as server:
        async with OctogenClient(
            api_key=KEY, base_url=server.base_url, spending=spending
        ) as client:
            searching = asyncio.create_task(client.search_products())
            await asyncio.to_thread(server.asked.wait, POLL_SECONDS)
            await asyncio.sleep(0.2)
            searching.cancel()
            with pytest.raises(asyncio.CancelledError):
                await searching
            for _ in range(pages_left):
                assert (await client.search_products()).uuids == ["a"]
            with pytest.raises(OctogenBudgetError):
                await client.search_products()
    assert float(spending.spent_usd) == pages_left * ONE_PAGE_USD
