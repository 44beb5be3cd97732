"""A read whose server is silent ends within seconds when it is interrupted or the process exits."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Event

import pytest

from tests.api.servers import KEY, RawServer, Received

ENDING_SECONDS = 10
"""The promise is two seconds; a busy machine takes longer, and a broken promise 30 or more."""
START_SECONDS = 120
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
    catalogs=ShopCatalogs(hosts=[f"shop-{{n}}.example" for n in range(40)])
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


@pytest.mark.slow
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
import sys
import dagster as dg
from octogen_dagster import *

url, folder, what = sys.argv[1:]
products = build_products_asset("products", ProductSearch(catalogs=["acme"]), retry_policy=None)

@dg.asset(name="products")
def before():
    import polars as pl
    row = {{"uuid": ["1"], "product_url": ["https://acme.example/1"]}}
    return pl.DataFrame(row).lazy().select(
        pl.col(name) if name in row else pl.lit(None, dtype=dtype).alias(name)
        for name, dtype in PRODUCT_SCHEMA.items()
    )

resources = {{
    "octogen": OctogenResource(api_key={KEY!r}, base_url=url),
    "io_manager": ParquetSnapshotIOManager(base_dir=folder),
}}
with dg.DagsterInstance.ephemeral() as instance:
    if what == "details":
        details = build_product_details_asset(products)
        dg.materialize([before], resources=resources, instance=instance)
        dg.materialize(
            [products, details], selection=[details], resources=resources, instance=instance
        )
    else:
        dg.materialize([products], resources=resources, instance=instance)
"""


@pytest.mark.slow
@pytest.mark.parametrize("what", ["products", "details"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_is_cancelled_ends(
    server: SilentServer, tmp_path: Path, number: signal.Signals, what: str
) -> None:
    with start(RUN, server, str(tmp_path), what) as process:
        try:
            assert server.asked.wait(START_SECONDS)
            asked_at = time.monotonic()
            process.send_signal(number)
            process.communicate(timeout=ENDING_SECONDS + 5)
        finally:
            process.kill()
    assert process.returncode != 0
    assert time.monotonic() - asked_at < ENDING_SECONDS + 5
    if what == "products":
        assert not list(tmp_path.rglob("*.parquet"))
