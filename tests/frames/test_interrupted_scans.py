"""A scan whose server is silent ends soon when it is stopped or the interpreter exits."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from threading import Event

import pytest

from octogen_dagster.api.cancellation import ClosedError
from octogen_dagster.api.catalog_sources import ShopCatalogs
from octogen_dagster.api.connection import Connection
from octogen_dagster.api.credentials import ApiKey
from octogen_dagster.background import submit
from octogen_dagster.frames.details.scan import DetailScan
from octogen_dagster.frames.lazy_scan import LazyScan
from octogen_dagster.frames.scan import ProductScan
from octogen_dagster.frames.search import ProductSearch
from tests.api.servers import KEY, POLL_SECONDS, RawServer, Received
from tests.frames.details.made_up import products

ENDING_SECONDS = 10
"""The promise is two seconds; a busy machine takes longer, and a broken promise 30 or more."""


class SilentServer(RawServer):
    """Says when it has received a request, and never responds."""

    def __init__(self) -> None:
        self.asked = Event()
        super().__init__(self._wait)

    def _wait(self, _: Received) -> Iterator[bytes]:
        self.asked.set()
        self.closing.wait(POLL_SECONDS)
        yield b""


def list_of_catalogs(connection: Connection) -> LazyScan:
    return ProductScan(ProductSearch(), connection)


def shops(connection: Connection) -> LazyScan:
    return ProductScan(
        ProductSearch(),
        Connection(
            api_key=connection.api_key,
            base_url=connection.base_url,
            catalogs=ShopCatalogs(hosts=[f"shop-{number}.example" for number in range(40)]),
        ),
    )


def pages(connection: Connection) -> LazyScan:
    return ProductScan(ProductSearch(catalogs=["a", "b"], max_products=5), connection)


def lookups(connection: Connection) -> LazyScan:
    return DetailScan(products("p0", "p1").lazy(), connection)


@pytest.mark.parametrize("make_scan", [list_of_catalogs, shops, pages, lookups])
def test_a_scan_that_is_stopped_ends_what_it_waits_for(
    make_scan: Callable[[Connection], LazyScan],
) -> None:
    with SilentServer() as server:
        scan = make_scan(Connection(api_key=ApiKey(KEY), base_url=server.base_url))
        reading = submit(scan.frame.collect, "reading")
        assert server.asked.wait(POLL_SECONDS)
        scan.stop()
        with pytest.raises(ClosedError):
            reading.result(ENDING_SECONDS)


PROGRAM = """
import sys, threading
from octogen_dagster.frames.scan import scan_products
from octogen_dagster.frames.search import ProductSearch

frame = scan_products(
    ProductSearch(catalogs=sys.argv[2:]), api_key="octo_live_test", base_url=sys.argv[1]
)
threading.Thread(target=frame.collect, daemon=True).start()
sys.stdin.readline()
"""


INTERRUPTED_PROGRAM = """
import sys
from octogen_dagster.frames.scan import scan_products
from octogen_dagster.frames.search import ProductSearch

frame = scan_products(
    ProductSearch(catalogs=sys.argv[2:]), api_key="octo_live_test", base_url=sys.argv[1]
)
frame.collect()
"""


@pytest.mark.slow
@pytest.mark.parametrize("catalogs", [[], ["acme"]], ids=["catalogs", "pages"])
def test_ctrl_c_ends_a_script_that_waits_for_a_scan(catalogs: list[str]) -> None:
    with SilentServer() as server:
        process = subprocess.Popen(
            [sys.executable, "-c", INTERRUPTED_PROGRAM, server.base_url, *catalogs],
            stderr=subprocess.DEVNULL,
        )
        try:
            assert server.asked.wait(POLL_SECONDS)
            process.send_signal(signal.SIGINT)
            process.wait(ENDING_SECONDS)
        finally:
            process.kill()
    assert process.returncode == -signal.SIGINT


@pytest.mark.slow
@pytest.mark.parametrize("catalogs", [[], ["acme"]], ids=["catalogs", "pages"])
def test_a_process_exits_while_a_scan_waits(catalogs: list[str]) -> None:
    with SilentServer() as server:
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, server.base_url, *catalogs],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            assert server.asked.wait(POLL_SECONDS)
            process.communicate("\n", timeout=ENDING_SECONDS)
        finally:
            process.kill()
    assert process.returncode == 0
