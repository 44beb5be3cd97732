"""A scan says what it did, and its errors reach the caller."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import polars as pl
import pytest

from octogen_dagster import (
    OctogenResource,
    ProductScan,
    ProductSearch,
    scan_products,
)
from octogen_dagster.errors import (
    OctogenAuthenticationError,
    OctogenBudgetError,
    OctogenNotFoundError,
    OctogenPagingError,
    OctogenResponseError,
    OctogenServerError,
)
from octogen_dagster.sandbox.faults import Fault
from octogen_dagster.sandbox.server import Sandbox
from tests.api.servers import KEY, RawServer, Received, http, page


@pytest.fixture(scope="module", params=["seed", "current"])
def catalogs(request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    """Three catalogs that no test changes, in both generations of the contract."""
    shops = {"northpeak": 230, "strada": 120, "voltaic": 7}
    with Sandbox(catalogs=shops, generation=request.param) as running:
        yield running


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    """Two catalogs for one test, which may break them."""
    with Sandbox(catalogs={"northpeak": 230, "strada": 120}, generation="seed") as running:
        yield running


def scan(sandbox: Sandbox, search: ProductSearch | None = None, **options: Any) -> pl.LazyFrame:
    return scan_products(
        search or ProductSearch(),
        api_key=sandbox.api_key,
        base_url=sandbox.base_url,
        **options,
    )


def product_scan(
    sandbox: Sandbox, search: ProductSearch | None = None, report: Any = None, **settings: Any
) -> ProductScan:
    octogen = OctogenResource(
        api_key=sandbox.api_key, base_url=sandbox.base_url, **{"attempts": 3, **settings}
    )
    return octogen.scan(search or ProductSearch(), report)


def searches(sandbox: Sandbox, since: int = 0) -> list[dict[str, Any]]:
    return [
        request.body or {}
        for request in sandbox.requests[since:]
        if request.path == "/products/search" or request.path.endswith("/products/search")
    ]


def test_the_statistics_tell_what_happened(sandbox: Sandbox) -> None:
    sandbox.inject(Fault("status", 503, times=2, path="/products/search"))
    reports: list[Any] = []
    found = product_scan(sandbox, report=reports.append)
    found.frame.collect()

    statistics = found.statistics
    assert (statistics.rows, statistics.pages, statistics.retries) == (350, 5, 2)
    assert statistics.requests == len(sandbox.requests)  # also those of the list of catalogs
    assert statistics.catalogs == ["northpeak", "strada"]
    assert statistics.complete
    assert not statistics.truncated
    sent = {request.request_id for request in sandbox.requests}
    assert {statistics.first_request_id, statistics.last_request_id} <= sent
    assert reports[-1] is statistics


def test_a_cap_over_all_catalogs_is_one_search_across_them(catalogs: Sandbox) -> None:
    before = len(catalogs.requests)
    found = product_scan(catalogs, ProductSearch(max_products=20))
    assert found.frame.collect().height == 20
    assert searches(catalogs, before) == [{"limit": 20}]


@pytest.mark.parametrize(
    ("fault", "error", "text"),
    [
        (Fault("restart_cursor", page=2), OctogenPagingError, "answered page 2 with page 1 again"),
        (Fault("loop_cursor", page=2), OctogenPagingError, r"page 2 has the next cursor that"),
        (
            Fault("html", path="/products/search"),
            OctogenResponseError,
            "page 1, was answered with 200 and",
        ),
        (Fault("truncate", page=2), OctogenResponseError, "a body that is not JSON"),
        (Fault("wrong_type", page=2), OctogenResponseError, "currentPrice is wrong"),
        (Fault("status", 503), OctogenServerError, "503"),
        (Fault("status", 401), OctogenAuthenticationError, "OCTO_API_KEY"),
    ],
)
def test_what_goes_wrong_reaches_the_caller_as_it_is(
    sandbox: Sandbox, fault: Fault, error: type[Exception], text: str
) -> None:
    sandbox.inject(fault)
    found = product_scan(sandbox, ProductSearch(catalogs=["northpeak"], page_size=50))
    with pytest.raises(error, match=text):
        found.frame.collect()
    assert not found.statistics.complete


class Unlisted(RawServer):
    """A service without a list, whose four pages have two products each."""

    def __init__(self) -> None:
        self.cursors: list[str | None] = []
        super().__init__(self._answer)

    def _answer(self, request: Received) -> list[bytes]:
        if request.target != "/v1/products/search":
            return http(404, {"detail": "Not Found"})
        self.cursors.append(request.json.get("cursor"))
        number = int(request.json.get("cursor", 1))
        following = str(number + 1) if number < 4 else None
        return http(200, page([f"p{number}", f"q{number}"], following))


@pytest.mark.parametrize("budget_usd", [None, 1.0])
def test_all_of_octogen_is_read_only_up_to_a_row_limit_or_a_budget(
    budget_usd: float | None,
) -> None:
    with Unlisted() as server:
        frame = scan_products(
            ProductSearch(), api_key=KEY, base_url=server.base_url, budget_usd=budget_usd
        )
        assert frame.head(3).collect()["uuid"].to_list() == ["p1", "q1", "p2"]
        assert server.cursors == [None, "2"]
        if budget_usd:
            assert frame.collect().height == 8
            return
        with pytest.raises(OctogenNotFoundError, match="would read all of Octogen, and each page"):
            frame.collect()
        with pytest.raises(OctogenNotFoundError, match="would read all of Octogen"):
            frame.filter(pl.col("current_price") > 5).collect()
        assert server.cursors == [None, "2"]


def test_the_budget_of_a_frame_is_that_of_all_its_executions() -> None:
    search = ProductSearch(catalogs=["acme"])
    with Unlisted() as server:
        frame = scan_products(search, api_key=KEY, base_url=server.base_url, budget_usd=6 * 0.014)
        assert frame.collect().height == 8
        with pytest.raises(OctogenBudgetError, match=r"budget of \$0\.084 .*: \$0\.084 are spent"):
            frame.collect()
