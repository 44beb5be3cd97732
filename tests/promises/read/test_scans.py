"""A scan says what it did, and its errors reach the caller."""

from __future__ import annotations

import gc
import itertools
import pickle
import weakref
from collections.abc import Iterator
from typing import Any

import polars as pl
import pytest

from octogen_dagster import NamedCatalogs, ProductScan, ProductSearch
from octogen_dagster.errors import (
    OctogenAuthenticationError,
    OctogenBudgetError,
    OctogenNotFoundError,
    OctogenResponseError,
    OctogenServerError,
)
from octogen_dagster.sandbox.faults import Fault
from octogen_dagster.sandbox.server import Sandbox
from tests.api.servers import RawServer, Received, http, page_of, unlisted
from tests.promises.paged_service import PagedService
from tests.results import octogen_at, scan


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


def product_scan(
    sandbox: Sandbox, search: ProductSearch | None = None, report: Any = None, **settings: Any
) -> ProductScan:
    octogen = octogen_at(sandbox, **{"attempts": 3, **settings})
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
        (
            Fault("wrong_type", page=2),
            OctogenResponseError,
            "invalid field currentPrice in product",
        ),
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


def eight(request: Received) -> list[bytes]:
    """A page of two of eight products."""
    products = [f"{name}{number}" for number in range(1, 5) for name in "pq"]
    return http(200, page_of(products, request.json | {"limit": 2}))


def cursors(server: RawServer) -> list[str | None]:
    """The cursors of the searches, in order."""
    searches = [each for each in server.received if each.target == "/v1/products/search"]
    return [each.json.get("cursor") for each in searches]


@pytest.mark.parametrize("budget_usd", [None, 1.0])
def test_all_of_octogen_is_read_only_up_to_a_row_limit_or_a_budget(
    budget_usd: float | None,
) -> None:
    with unlisted(eight) as server:
        frame = scan(server, ProductSearch(), budget_usd=budget_usd)
        assert frame.head(3).collect()["uuid"].to_list() == ["p1", "q1", "p2"]
        assert cursors(server) == [None, "2"]
        if budget_usd:
            assert frame.collect().height == 8
            return
        with pytest.raises(
            OctogenNotFoundError, match="would read all of Octogen's catalogs, and each page"
        ):
            frame.collect()
        with pytest.raises(OctogenNotFoundError, match="would read all of Octogen"):
            frame.filter(pl.col("current_price") > 5).collect()
        assert cursors(server) == [None, "2"]


def test_the_budget_of_a_frame_is_that_of_all_its_executions() -> None:
    search = ProductSearch(catalogs=["acme"])
    with unlisted(eight) as server:
        frame = scan(server, search, budget_usd=6 * 0.014)
        assert frame.collect().height == 8
        with pytest.raises(OctogenBudgetError, match=r"budget of \$0\.084 \(\$0\.084 spent"):
            frame.collect()


# A query requests the pages that it needs, in the order of its catalogs, and not one more.


@pytest.fixture
def service() -> Iterator[PagedService]:
    with PagedService({"acme": 250, "zen": 7}).running() as service:
        yield service


@pytest.mark.parametrize(
    ("rows", "pages"), [(0, 0), (1, 1), (100, 1), (101, 2), (200, 2), (250, 3), (300, 3)]
)
@pytest.mark.parametrize("engine", ["in-memory", "streaming"])
def test_head_requests_no_page_that_it_does_not_need(
    service: PagedService, rows: int, pages: int, engine: Any
) -> None:
    frame = scan(service, ProductSearch(catalogs=["acme"])).head(rows).collect(engine=engine)
    assert frame["uuid"].to_list() == [f"acme-{number}" for number in range(min(rows, 250))]
    assert service.pages_of("acme") == list(range(1, pages + 1))


def test_a_query_that_ends_at_its_first_row_pays_for_few_small_pages() -> None:
    search = ProductSearch(catalogs=["acme"], page_size=10)
    with PagedService({"acme": 2_000}).running() as service:
        frame = scan(service, search, max_extra_pages_percent=0)
        assert frame.filter(pl.col("product_url").str.len_bytes() > 0).head(1).collect().height == 1
        # Polars 1 takes the rest as well, as docs/deploying.md says.
        most = 200 if pl.__version__.startswith("1.") else 35
        assert len(service.pages_of("acme")) <= most


@pytest.mark.parametrize(("cap", "acme"), [(5, 0), (7, 0), (8, 1), (107, 1), (108, 2)])
def test_a_cap_fills_up_from_the_named_catalogs_in_their_order(
    service: PagedService, cap: int, acme: int
) -> None:
    search = ProductSearch(catalogs=["zen", "acme"], max_products=cap)
    frame = scan(service, search).collect()
    assert frame["catalog_key"].to_list() == ["zen"] * min(cap, 7) + ["acme"] * max(0, cap - 7)
    assert len(service.pages_of("acme")) == acme


def test_a_query_of_one_catalog_reads_no_other(service: PagedService) -> None:
    key = pl.col("catalog_key")
    assert scan(service, ProductSearch()).filter(key == "zen").collect().height == 7
    assert service.searches == [("zen", 1)]
    assert scan(service, ProductSearch()).filter(key == "nowhere").collect().is_empty()
    assert len(service.searches) == 1


def test_a_query_without_columns_counts_rows(service: PagedService) -> None:
    frame = scan(service, ProductSearch(catalogs=["zen"]))
    for query in (
        frame.select(pl.len()),
        frame.with_row_index().filter(pl.col("index") < 9).select(pl.len()),
        frame.select(pl.int_range(pl.len())).select(pl.len()),
        frame.head(7).select(pl.len()),
    ):
        assert query.collect().item() == 7


def test_without_catalogs_there_is_nothing(service: PagedService) -> None:
    service.catalogs = {}
    frame = scan(service, ProductSearch()).collect()
    assert frame.is_empty()
    assert "current_price" in frame.columns


def test_catalogs_are_read_at_the_same_time(service: PagedService) -> None:
    service.catalogs = {f"shop-{number}": 300 for number in range(8)}
    frame = scan(service, ProductSearch(page_size=10), concurrency=8).collect()
    assert frame["uuid"].n_unique() == len(frame) == 2_400
    turns = sum(one[0] != other[0] for one, other in itertools.pairwise(service.searches))
    assert turns > 8


@pytest.mark.parametrize("concurrency", [1, 3])
def test_no_more_catalogs_at_a_time_than_allowed(service: PagedService, concurrency: int) -> None:
    service.catalogs = {f"shop-{number}": 100 for number in range(6)}
    keys = NamedCatalogs(keys=list(service.catalogs))
    search = ProductSearch(page_size=10)
    assert len(scan(service, search, catalog_source=keys, concurrency=concurrency).collect()) == 600
    left = dict.fromkeys(service.catalogs, 10)
    begun: set[str] = set()
    for key, _ in service.searches:
        begun.add(key)
        assert len([each for each in begun if left[each]]) <= concurrency
        left[key] -= 1


def test_each_catalog_comes_in_the_order_of_the_service(service: PagedService) -> None:
    frame = scan(service, ProductSearch(page_size=10)).collect()
    for key, count in service.catalogs.items():
        of_catalog = frame.filter(pl.col("catalog_key") == key)["uuid"].to_list()
        assert of_catalog == [f"{key}-{number}" for number in range(count)]


def test_a_scan_that_nobody_holds_is_freed(sandbox: Sandbox) -> None:
    scan = product_scan(sandbox)
    assert scan.frame.collect().height == 350
    freed = weakref.ref(scan)
    del scan
    gc.collect()
    assert freed() is None


def test_a_frame_can_be_pickled_while_another_is_read(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OCTOGEN_PLATFORM_API_KEY", sandbox.api_key)  # no pickle has it
    pickled: list[bytes] = []

    def pickle_another(frame: pl.DataFrame) -> pl.DataFrame:
        pickled.append(pickle.dumps(scan(sandbox)))
        return frame

    scan(sandbox).map_batches(pickle_another, streamable=True).collect(engine="streaming")
    assert pickle.loads(pickled[0]).collect().height == 350


def test_a_frame_of_a_scan_that_occurs_twice_in_a_query_is_read_once(sandbox: Sandbox) -> None:
    scan = product_scan(sandbox)
    counts = scan.frame.group_by("catalog_key").agg(pl.len())
    assert scan.frame.join(counts, on="catalog_key").collect(engine="streaming").height == 350
    read_once = scan.spending.charged_requests
    scan.frame.collect()
    assert scan.spending.charged_requests == 2 * read_once
