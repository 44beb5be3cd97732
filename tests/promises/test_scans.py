"""A scan says what it did, and its errors reach the caller."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from octogen_dagster import (
    PRODUCT_SCHEMA,
    OctogenResource,
    ProductScan,
    ProductSearch,
    scan_products,
)
from octogen_dagster.errors import (
    MissingAPIKeyError,
    OctogenAuthenticationError,
    OctogenBudgetError,
    OctogenEmptyCatalogError,
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


def test_a_search_with_keywords_has_no_repeats_though_the_service_sends_some(
    catalogs: Sandbox,
) -> None:
    found = product_scan(catalogs, ProductSearch(q="outdoor", catalogs=["northpeak"], page_size=5))
    frame = found.frame.collect()

    assert frame["uuid"].n_unique() == len(frame) > 5
    assert found.statistics.repeats > 0
    assert found.statistics.rows == len(frame)


def test_small_pages_of_an_uncapped_read_are_a_warning(
    catalogs: Sandbox, caplog: pytest.LogCaptureFixture
) -> None:
    small = scan(catalogs, ProductSearch(catalogs=["strada"], page_size=50))
    small.head(5).collect()
    scan(catalogs, ProductSearch(catalogs=["strada"], page_size=50, max_products=5)).collect()
    assert not caplog.messages
    small.collect()
    assert caplog.messages == [
        "page_size is 50: a page costs the same whatever its size, so this read costs 2 times as "
        "much as with page_size 100."
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


def test_a_scan_can_be_executed_again(sandbox: Sandbox) -> None:
    found = product_scan(sandbox)
    assert found.frame.collect().height == found.frame.collect().height == 350
    assert found.statistics.rows == 350


def test_an_empty_result_has_the_whole_schema(catalogs: Sandbox, tmp_path: Path) -> None:
    nothing = ProductSearch(q="zzzzzz", catalogs=["strada"])
    scan(catalogs, nothing).sink_parquet(tmp_path / "empty.parquet")

    frame = pl.read_parquet(tmp_path / "empty.parquet")
    assert frame.is_empty()
    assert frame.schema == PRODUCT_SCHEMA


def test_waiting_for_the_rate_limit_is_counted(sandbox: Sandbox) -> None:
    sandbox.set_rate_limit(600)
    search = ProductSearch(catalogs=["strada"], page_size=1, max_products=9)
    found = product_scan(sandbox, search, reserve=0.999)
    assert found.frame.collect().height == 9
    assert found.statistics.rate_limit_wait_seconds > 0
    assert found.statistics.retries == 0


def test_a_cap_over_all_catalogs_is_one_search_across_them(catalogs: Sandbox) -> None:
    before = len(catalogs.requests)
    found = product_scan(catalogs, ProductSearch(max_products=20))
    assert found.frame.collect().height == 20
    assert searches(catalogs, before) == [{"limit": 20}]


def test_the_generation_is_learned_by_one_refused_request_for_all_catalogs() -> None:
    shops = {f"shop-{number}": 3 for number in range(24)}
    with Sandbox(catalogs=shops, generation="current") as sandbox:
        search = ProductSearch(catalogs=list(shops))
        assert scan(sandbox, search, concurrency=24).collect().height == 3 * 24
        assert scan(sandbox, search, concurrency=24).select("uuid").collect().height == 3 * 24
        statuses = [request.status for request in sandbox.requests if request.body]
    assert statuses.count(422) == 2  # one for each frame
    assert statuses.count(200) == 2 * 24


def test_a_search_whose_second_page_repeats_most_of_the_first_is_read() -> None:
    with Sandbox(catalogs={"northpeak": 400}, generation="seed") as sandbox:
        search = ProductSearch(q="fleece", catalogs=["northpeak"], page_size=50)
        found = product_scan(sandbox, search)
        frame = found.frame.collect()
    assert found.statistics.repeats > 25
    assert frame["uuid"].n_unique() == len(frame) > 50


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


def test_a_page_cut_in_the_middle_is_asked_for_again(sandbox: Sandbox) -> None:
    sandbox.inject(Fault("cut", page=2, times=1))
    found = product_scan(sandbox, ProductSearch(catalogs=["northpeak"]))
    assert found.frame.collect().height == 230
    assert found.statistics.retries == 1


def test_unknown_fields_are_reported_and_lose_nothing(sandbox: Sandbox) -> None:
    plain = scan(sandbox).collect().drop("fetched_at").sort("uuid")
    sandbox.inject(Fault("unknown_fields"))
    found = product_scan(sandbox)
    frame = found.frame.collect().drop("fetched_at").sort("uuid")
    assert frame.equals(plain)
    assert sum(found.statistics.unknown_fields.values()) >= 350


def test_an_unknown_catalog_is_an_error_that_names_it(catalogs: Sandbox) -> None:
    errors = (OctogenNotFoundError, OctogenEmptyCatalogError)
    with pytest.raises(errors, match=r"^Catalog 'farfetch' (is not granted|has no products)"):
        scan(catalogs, ProductSearch(catalogs=["farfetch"])).collect()


def test_one_failing_catalog_fails_the_whole_read(sandbox: Sandbox) -> None:
    with pytest.raises(OctogenNotFoundError, match="'farfetch'"):
        scan(sandbox, ProductSearch(catalogs=["northpeak", "farfetch"])).collect()


def test_a_missing_key_is_an_error_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OCTO_API_KEY", raising=False)
    monkeypatch.delenv("OCTOGEN_PLATFORM_API_KEY", raising=False)
    with pytest.raises(MissingAPIKeyError):
        scan_products(ProductSearch())


def test_a_pickled_scan_holds_no_key(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    frozen = scan(sandbox).serialize()
    assert sandbox.api_key.encode() not in frozen

    monkeypatch.setenv("OCTO_API_KEY", sandbox.api_key)
    assert pl.LazyFrame.deserialize(frozen).collect().height == 350


async def test_a_scan_runs_inside_an_event_loop(sandbox: Sandbox) -> None:
    assert scan(sandbox).collect().height == 350


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


def test_a_read_logs_what_it_takes_before_it_begins(
    sandbox: Sandbox, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "octogen_dagster")
    scan(sandbox).collect()
    assert caplog.messages == [
        "2 catalogs: 350 products in 5 pages, $0.07, all within the rate limit of 600,000 requests "
        "a minute."
    ]
    caplog.clear()
    scan(sandbox).head(10).collect()
    assert caplog.messages == []
