from __future__ import annotations

import dataclasses
import itertools
import subprocess
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from octogen_dagster.api.catalog_sources import NamedCatalogs
from octogen_dagster.api.connection import Connection
from octogen_dagster.api.credentials import ApiKey
from octogen_dagster.api.retry import RetryPolicy
from octogen_dagster.api.search import ProductSearch
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
from octogen_dagster.frames.columns import PRODUCT_SCHEMA
from octogen_dagster.frames.scan import ProductScan, scan_products
from octogen_dagster.frames.scan_statistics import ScanStatistics
from octogen_dagster.sandbox.faults import Fault
from octogen_dagster.sandbox.server import Sandbox
from tests.frames.scripted import ScriptedCatalog, service

QUICK = RetryPolicy(attempts=4, first_delay=0.001, max_delay=0.01)


def scan(sandbox: Sandbox, search: ProductSearch | None = None, **options: Any) -> pl.LazyFrame:
    return scan_products(
        search or ProductSearch(),
        api_key=sandbox.api_key,
        base_url=sandbox.base_url,
        retry=QUICK,
        **options,
    )


def product_scan(
    sandbox: Sandbox, search: ProductSearch | None = None, **options: Any
) -> ProductScan:
    connection = Connection(api_key=ApiKey(sandbox.api_key), base_url=sandbox.base_url, retry=QUICK)
    return ProductScan(search or ProductSearch(), connection, **options)


def searches(sandbox: Sandbox, since: int = 0) -> list[dict[str, Any]]:
    return [
        request.body or {}
        for request in sandbox.requests[since:]
        if request.path == "/products/search" or request.path.endswith("/products/search")
    ]


def test_a_complete_read_brings_every_product_of_every_catalog_once(catalogs: Sandbox) -> None:
    keys = NamedCatalogs(keys=["northpeak", "strada", "voltaic"])
    frame = scan(catalogs, catalogs=keys).collect()

    assert frame.schema == PRODUCT_SCHEMA
    assert frame["uuid"].n_unique() == len(frame) == 357
    counts = frame.group_by("catalog_key").len().sort("catalog_key").rows()
    assert counts == [("northpeak", 230), ("strada", 120), ("voltaic", 7)]


def test_named_catalogs_are_read_and_no_others(catalogs: Sandbox) -> None:
    frame = scan(catalogs, ProductSearch(catalogs=["voltaic", "strada"])).collect()
    assert sorted(frame["catalog_key"].unique()) == ["strada", "voltaic"]
    assert len(frame) == 127


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


def test_the_order_within_a_catalog_is_the_services(catalogs: Sandbox) -> None:
    pages = [
        scan(catalogs, ProductSearch(catalogs=["northpeak"], page_size=size)).collect()
        for size in (7, 100)
    ]
    assert pages[0]["uuid"].to_list() == pages[1]["uuid"].to_list()


def test_the_statistics_tell_what_happened(sandbox: Sandbox) -> None:
    sandbox.inject(Fault("status", 503, times=2, path="/products/search"))
    reports: list[ScanStatistics] = []
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


def test_no_granted_catalogs_is_an_empty_result(sandbox: Sandbox) -> None:
    sandbox.revoke("northpeak")
    sandbox.revoke("strada")
    assert scan(sandbox).collect().is_empty()


def test_a_cap_takes_the_first_and_says_so(catalogs: Sandbox) -> None:
    found = product_scan(catalogs, ProductSearch(catalogs=["northpeak"], max_products=130))
    whole = scan(catalogs, ProductSearch(catalogs=["northpeak"])).collect()

    assert found.frame.collect()["uuid"].to_list() == whole["uuid"].to_list()[:130]
    assert found.statistics.truncated
    assert found.statistics.complete


def test_a_cap_at_the_end_of_a_page_with_more_behind_it_says_so(catalogs: Sandbox) -> None:
    search = ProductSearch(catalogs=["northpeak"], page_size=50, max_products=100)
    found = product_scan(catalogs, search)
    assert found.frame.collect().height == 100
    assert found.statistics.truncated


def test_waiting_for_the_rate_limit_is_counted(sandbox: Sandbox) -> None:
    sandbox.set_rate_limit(600)
    found = product_scan(sandbox, ProductSearch(catalogs=["strada"], page_size=1, max_products=9))
    found.connection = dataclasses.replace(found.connection, reserve=0.999)
    assert found.frame.collect().height == 9
    assert found.statistics.rate_limit_wait_seconds > 0
    assert found.statistics.retries == 0


@pytest.mark.parametrize("engine", ["in-memory", "streaming"])
def test_a_query_without_columns_still_counts_rows(catalogs: Sandbox, engine: Any) -> None:
    frame = scan(catalogs, ProductSearch(catalogs=["voltaic"]))
    for query in (
        frame.select(pl.len()),
        frame.with_row_index().filter(pl.col("index") < 9).select(pl.len()),
        frame.with_row_index().select("index").select(pl.len()),
        frame.select(pl.int_range(pl.len())).select(pl.len()),
        frame.head(7).select(pl.len()),
    ):
        assert query.collect(engine=engine).item() == 7


def test_a_cap_that_cuts_nothing_is_no_truncation(catalogs: Sandbox) -> None:
    for cap in (7, 8):
        found = product_scan(catalogs, ProductSearch(catalogs=["voltaic"], max_products=cap))
        assert found.frame.collect().height == 7
        assert not found.statistics.truncated


def test_a_cap_over_named_catalogs_fills_up_in_their_order(catalogs: Sandbox) -> None:
    search = ProductSearch(catalogs=["voltaic", "strada", "northpeak"], max_products=100)
    found = product_scan(catalogs, search)
    assert found.frame.collect()["catalog_key"].to_list() == ["voltaic"] * 7 + ["strada"] * 93
    assert found.statistics.truncated


def test_a_cap_over_all_catalogs_is_one_search_across_them(catalogs: Sandbox) -> None:
    before = len(catalogs.requests)
    found = product_scan(catalogs, ProductSearch(max_products=20))
    assert found.frame.collect().height == 20
    assert searches(catalogs, before) == [{"limit": 20}]


def test_catalogs_are_read_at_the_same_time(sandbox: Sandbox) -> None:
    for number in range(6):
        sandbox.grant(f"shop-{number}", products=300)
    scan(sandbox, ProductSearch(page_size=50), concurrency=8).collect()

    order = [body["catalog"] for body in searches(sandbox)]
    turns = sum(one != other for one, other in itertools.pairwise(order))
    assert len(set(order)) == 8
    assert turns > 8


@pytest.mark.parametrize("concurrency", [1, 3])
def test_no_more_catalogs_at_a_time_than_allowed(sandbox: Sandbox, concurrency: int) -> None:
    for number in range(4):
        sandbox.grant(f"shop-{number}", products=300)
    scan(sandbox, ProductSearch(page_size=50), concurrency=concurrency).collect()

    left = dict.fromkeys([f"shop-{number}" for number in range(4)], 6)
    left |= {"northpeak": 5, "strada": 3}
    started: set[str] = set()
    for body in searches(sandbox):
        started.add(body["catalog"])
        assert len([key for key in started if left[key]]) <= concurrency
        left[body["catalog"]] -= 1


def test_the_generation_is_learned_by_one_refused_request_for_all_catalogs() -> None:
    shops = {f"shop-{number}": 3 for number in range(24)}
    with Sandbox(catalogs=shops, generation="current") as sandbox:
        search = ProductSearch(catalogs=list(shops))
        assert scan(sandbox, search, concurrency=24).collect().height == 3 * 24
        assert scan(sandbox, search, concurrency=24).select("uuid").collect().height == 3 * 24
        statuses = [request.status for request in sandbox.requests if request.body]
    assert statuses.count(422) == 2  # one for each frame
    assert statuses.count(200) == 2 * 24


def test_head_reads_no_more_than_it_needs(catalogs: Sandbox) -> None:
    before = len(catalogs.requests)
    frame = scan(catalogs, ProductSearch(catalogs=["northpeak"])).head(3).collect()
    assert frame.height == 3
    assert len([body for body in searches(catalogs, before) if "cursor" in body]) == 0


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


STOPPED_EARLY = """
import polars as pl, sys
from octogen_dagster import ProductSearch, scan_products
frame = scan_products(ProductSearch(page_size=5), api_key="{key}", base_url="{url}")
found = frame.filter(pl.col("title").str.len_chars() > 0).head(3).collect()
assert found.height == 3, found
print("found")
"""


@pytest.mark.slow
def test_a_process_that_stops_a_read_early_ends_cleanly(sandbox: Sandbox) -> None:
    program = STOPPED_EARLY.format(key=sandbox.api_key, url=sandbox.base_url)
    for _ in range(3):
        done = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
        )
        assert (done.returncode, done.stdout) == (0, "found\n")
        (warning,) = done.stderr.splitlines()
        assert warning.startswith("page_size is 5: ")


@pytest.mark.parametrize("budget_usd", [None, 1.0])
def test_all_of_octogen_is_read_only_up_to_a_row_limit_or_a_budget(
    budget_usd: float | None,
) -> None:
    catalog = ScriptedCatalog()
    with service(catalog) as base_url:
        frame = scan_products(
            ProductSearch(), api_key="octo_live_test", base_url=base_url, budget_usd=budget_usd
        )
        assert frame.head(3).collect()["uuid"].to_list() == ["p1", "q1", "p2"]
        assert catalog.cursors == [None, "c2"]
        if budget_usd:
            assert frame.collect().height == 8
            return
        with pytest.raises(OctogenNotFoundError, match="would read all of Octogen, and each page"):
            frame.collect()
        with pytest.raises(OctogenNotFoundError, match="would read all of Octogen"):
            frame.filter(pl.col("current_price") > 5).collect()
        assert catalog.cursors == [None, "c2"]


def test_the_budget_of_a_frame_is_that_of_all_its_executions() -> None:
    with service(ScriptedCatalog()) as base_url:
        frame = scan_products(
            ProductSearch(catalogs=["acme"]),
            api_key="octo_live_test",
            base_url=base_url,
            budget_usd=6 * 0.014,
        )
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
