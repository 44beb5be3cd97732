"""A 429 `concurrency_limit_exceeded` lowers how many requests are in flight for the rest of a read.

The servers count how many there are at once. No test asserts a time.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, TypeAlias

import dagster as dg
import httpx
import polars as pl
import pytest

from octogen_dagster import ProductSearch, build_product_details_asset
from octogen_dagster.sandbox.server import Sandbox
from octogen_dagster.sandbox.state import ReceivedRequest
from octogen_dagster.schemas import PRODUCT_SCHEMA
from tests.api.servers import RawServer, Received, http, page
from tests.forked import processes
from tests.promises.read.rate_limit_runs import PAGE_SIZE, by_dagster
from tests.results import octogen_at, scan, stored

CONCURRENCY = 16
CATALOGS = [f"shop-{number}" for number in range(CONCURRENCY)]
PAGES = 25
LOOKUPS = 100
REFUSAL = pytest.mark.parametrize(
    "detail",
    [
        "concurrency_limit_exceeded",
        {"code": "concurrency_limit_exceeded", "message": "Too many requests at once."},
    ],
    ids=["as a text", "as an object"],
)


class Service:
    """Sends pages of one product, and looks up any product.

    Attributes:
        answered: The number of requests that were answered with 200.
        refusals: For each refusal, how many requests were answered before it.
    """

    def __init__(self, detail: Any) -> None:
        self.detail = detail
        self.answered = 0
        self.refusals: list[int] = []
        self.in_flight = 0
        self.changed = threading.Condition()

    def answer(self, request: Received) -> list[bytes]:
        if request.target not in {"/v1/products/search", "/v1/products/lookup"}:
            return http(404, {"detail": "Not Found"})
        # Before several requests are sent at once, one may ask which contract the service speaks.
        is_page_1 = request.target.endswith("search") and "cursor" not in request.json
        with self.changed:
            is_first = is_page_1 or not self.answered
            self.in_flight += 1
            self.changed.notify_all()
            try:
                if not is_first and self.refuses():
                    self.refusals.append(self.answered)
                    self.changed.notify_all()
                    return http(429, {"detail": self.detail})
                self.answered += 1
            finally:
                self.in_flight -= 1
        return http(200, self._body(request))

    def refuses(self) -> bool:
        """Whether the request that came last is refused; `changed` is held."""
        raise NotImplementedError

    @staticmethod
    def _body(request: Received) -> dict[str, Any]:
        body = request.json
        if "url" in body:
            uuid = body["url"].rpartition("/")[2]
            return {"catalogKey": "acme", "product": {"uuid": uuid, "productUrl": body["url"]}}
        (catalog,) = body.get("catalogs") or [body["catalog"]]
        number = int(body.get("cursor") or 0)
        following = str(number + 1) if number + 1 < PAGES else None
        return page([f"{catalog}/{number}"], following)


class Crowded(Service):
    """Refuses the first request of each thread, when all of them have come.

    It keeps those that come then until there are more than half as many, for two seconds at most.

    Attributes:
        most: The most requests in flight after the refusals.
    """

    def __init__(self, detail: Any) -> None:
        super().__init__(detail)
        self.most = 0
        self._came = 0
        self._is_open = False

    def refuses(self) -> bool:
        self._came += 1
        self.changed.notify_all()
        if self._came <= CONCURRENCY:
            self.changed.wait_for(lambda: self._came >= CONCURRENCY, timeout=30)
            return True
        self.most = max(self.most, self.in_flight)
        self.changed.wait_for(lambda: self._is_open or self.in_flight > CONCURRENCY // 2, timeout=2)
        self._is_open = True
        return False


class Late(Service):
    """Refuses half of the first requests, and two that come while it still has some of the others.

    Attributes:
        most: The most requests in flight after that.
    """

    def __init__(self, detail: Any) -> None:
        super().__init__(detail)
        self.most = 0
        self._came = 0
        self._is_open = False

    def refuses(self) -> bool:
        self._came += 1
        number = self._came
        self.changed.notify_all()
        if number <= CONCURRENCY:
            self._wait_for(lambda: self._came >= CONCURRENCY)
            if number <= CONCURRENCY // 2:
                return True
            is_one_of_two = number > CONCURRENCY - 2
            refusals = CONCURRENCY // 2 + (0 if is_one_of_two else 2)
            self._wait_for(lambda: len(self.refusals) >= refusals)
            return False
        if len(self.refusals) < CONCURRENCY // 2 + 2:
            return True
        self.most = max(self.most, self.in_flight)
        self._is_open |= self.most >= CONCURRENCY // 2
        self.changed.notify_all()
        self.changed.wait_for(lambda: self._is_open, timeout=5)
        self._is_open = True
        return False

    def _wait_for(self, happened: Callable[[], bool]) -> None:
        assert self.changed.wait_for(happened, timeout=30)


def read(service: Service) -> None:
    """Read all catalogs, and assert that the read is whole."""
    with RawServer(service.answer) as server:
        frame = scan(server, ProductSearch(catalogs=CATALOGS), concurrency=CONCURRENCY).collect()
    expected = {f"{catalog}/{number}" for catalog in CATALOGS for number in range(PAGES)}
    assert len(frame) == len(expected)
    assert set(frame.get_column("uuid")) == expected


def look_up(service: Service, folder: Path) -> None:
    """Look up products, and assert that all are found."""

    @dg.asset
    def products() -> pl.DataFrame:
        uuids = [f"boot-{number}" for number in range(LOOKUPS)]
        urls = [f"https://acme.example/{uuid}" for uuid in uuids]
        rows = {"uuid": uuids, "catalog_key": ["acme"] * LOOKUPS, "product_url": urls}
        return pl.concat([PRODUCT_SCHEMA.to_frame(), pl.DataFrame(rows)], how="diagonal")

    with RawServer(service.answer) as server:
        octogen = octogen_at(server, concurrency=CONCURRENCY)
        resources = stored(folder, octogen)
        dg.materialize([products, build_product_details_asset(products)], resources=resources)
    frame = pl.read_parquet(folder / "products_details.parquet")
    assert frame.get_column("status").to_list() == ["found"] * LOOKUPS


def assert_halved(service: Crowded) -> None:
    assert len(service.refusals) == CONCURRENCY
    assert service.most <= CONCURRENCY // 2


@pytest.mark.slow
@REFUSAL
def test_a_read_sends_half_as_many_at_once_and_says_so_once(
    detail: Any, caplog: pytest.LogCaptureFixture
) -> None:
    service = Crowded(detail)
    read(service)
    assert_halved(service)
    (warning,) = [each for each in caplog.messages if "429 concurrency_limit_exceeded" in each]
    assert f" {CONCURRENCY // 2} " in warning


@pytest.mark.slow
@REFUSAL
def test_refusals_count_once_as_long_as_the_service_has_requests_from_before(detail: Any) -> None:
    service = Late(detail)
    read(service)
    assert service.most >= CONCURRENCY // 2


@pytest.mark.long
@REFUSAL
def test_lookups_are_half_as_many_at_once(tmp_path: Path, detail: Any) -> None:
    service = Crowded(detail)
    look_up(service, tmp_path)
    assert_halved(service)


# Eight runs at once, each in its own process, share one small rate limit.


RUNS = 8
KEYS = [f"shop-{number}" for number in range(RUNS)]
PAGES_OF_A_RUN = 8
REQUESTS_A_MINUTE = 240
RESERVE = REQUESTS_A_MINUTE // 5  # what `OctogenResource` leaves to others by default
POLL_SECONDS = 120.0

RunPipe: TypeAlias = "Connection[Any, Any]"


@pytest.mark.long
def test_eight_runs_at_once_share_the_bucket_and_none_fails_or_starves(tmp_path: Path) -> None:
    with (
        Sandbox(catalogs=KEYS, products=PAGES_OF_A_RUN * PAGE_SIZE, generation="seed") as shops,
        httpx.Client(headers={"Authorization": f"Bearer {shops.api_key}"}) as other,
        ExitStack() as started,
    ):
        runs: list[RunPipe] = []
        for entry in other.get(f"{shops.base_url}/catalogs").json():
            mine, its = processes.Pipe()
            arguments = (entry["catalog"], shops.environment, str(tmp_path / "snapshots"), its)
            process = processes.Process(target=by_dagster, args=arguments)
            process.start()
            its.close()  # otherwise the end of the process would not be noticed here
            started.callback(process.kill)
            runs.append(mine)
        assert [_receive(run) for run in runs] == ["ready"] * RUNS
        _spend_all_but_the_reserve(shops, other)
        before = len(shops.requests)
        for run in runs:
            run.send("go")
        messages = [_receive(run) for run in runs]
        requests = shops.requests[before:]

    for rows, rate_limit_wait_seconds in messages:
        assert rows == PAGES_OF_A_RUN * PAGE_SIZE
        assert rate_limit_wait_seconds > 0
    # The runs needed more than the limit allowed at once, and none was refused.
    assert RUNS * PAGES_OF_A_RUN > RESERVE
    # Each run lists the catalogs once more at its end.
    assert Counter(request.status for request in requests) == {200: RUNS * (PAGES_OF_A_RUN + 1)}
    # A busy machine may delay a run, but no run waits while another gets all of its pages.
    searches = [request for request in requests if request.path == "/products/search"]
    assert _most_pages_meanwhile(searches) < PAGES_OF_A_RUN - 1


def _receive(run: RunPipe) -> Any:
    """Receive a message of a run; raise EOFError if the run failed."""
    assert run.poll(POLL_SECONDS)
    return run.recv()


def _spend_all_but_the_reserve(shops: Sandbox, other: httpx.Client) -> None:
    """Let another client of the organization spend what the runs could spend at once."""
    shops.set_rate_limit(REQUESTS_A_MINUTE)
    remaining = REQUESTS_A_MINUTE
    while remaining > RESERVE:
        response = other.get(f"{shops.base_url}/catalogs")
        remaining = int(response.headers["X-RateLimit-Remaining"])


def _most_pages_meanwhile(requests: list[ReceivedRequest]) -> int:
    """Return the most pages that one run got while another waited for its next one."""
    most = 0
    meanwhile: dict[str, Counter[str]] = {}
    for request in requests:
        assert request.body
        catalog = request.body["catalog"]
        meanwhile.pop(catalog, None)
        for pages in meanwhile.values():
            pages[catalog] += 1
            most = max(most, pages[catalog])
        if request.page < PAGES_OF_A_RUN:
            meanwhile[catalog] = Counter()
    return most
