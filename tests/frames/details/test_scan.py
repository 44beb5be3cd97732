"""The full views of a snapshot's products, looked up against real servers."""

from __future__ import annotations

import json
import pickle
import re
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from octogen_dagster.api.connection import Connection
from octogen_dagster.api.credentials import ApiKey
from octogen_dagster.api.refusals import ServiceRefusals
from octogen_dagster.api.retry import RetryPolicy
from octogen_dagster.api.search import ProductSearch
from octogen_dagster.errors import (
    OctogenAuthenticationError,
    OctogenForbiddenError,
    OctogenInsufficientCreditError,
    OctogenSnapshotError,
)
from octogen_dagster.frames.columns import DETAIL_SCHEMA, PRODUCT_SCHEMA
from octogen_dagster.frames.details.rows import ROW_GROUP_SIZE
from octogen_dagster.frames.details.scan import DetailScan
from octogen_dagster.frames.details.statistics import DetailStatistics
from octogen_dagster.frames.pages.store import PageStore
from octogen_dagster.frames.scan import scan_products
from octogen_dagster.sandbox.faults import Fault
from octogen_dagster.sandbox.server import Sandbox
from tests.frames.scripted import service

LOOKUP = "/products/lookup"
QUICK = RetryPolicy(attempts=4, first_delay=0.001, max_delay=0.01)
ONCE = RetryPolicy(attempts=1)
NOWHERE = Connection(api_key=ApiKey("octo_live_test"), base_url="http://127.0.0.1:1/v1", retry=ONCE)


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    """More products than one batch has, for one test, which may break them."""
    with Sandbox(catalogs={"northpeak": 230, "strada": 60}, generation="current") as running:
        yield running


def products_of(sandbox: Sandbox, *catalogs: str) -> pl.DataFrame:
    search = ProductSearch(catalogs=list(catalogs or ["strada"]))
    return scan_products(search, api_key=sandbox.api_key, base_url=sandbox.base_url).collect()


def connection(sandbox: Sandbox, retry: RetryPolicy = QUICK, **settings: Any) -> Connection:
    key = ApiKey(sandbox.api_key)
    return Connection(api_key=key, base_url=sandbox.base_url, retry=retry, **settings)


def detail_scan(
    sandbox: Sandbox, products: pl.DataFrame, retry: RetryPolicy = QUICK, **options: Any
) -> DetailScan:
    return DetailScan(products.lazy(), connection(sandbox, retry), **options)


def lookups(sandbox: Sandbox) -> list[str]:
    received = (request for request in sandbox.requests if request.path == LOOKUP)
    return [request.body["url"] for request in received if request.body]


def made_up(*uuids: str, **columns: Any) -> pl.DataFrame:
    """A snapshot of products that no service knows."""
    rows = [
        {"uuid": uuid, "product_url": f"https://shop.example/{uuid}", **columns} for uuid in uuids
    ]
    return pl.DataFrame(rows, schema=PRODUCT_SCHEMA)


def looked_up_before(products: pl.DataFrame) -> pl.DataFrame:
    """The details snapshot of products that were found an hour ago."""
    then = datetime(2026, 11, 24, 12, tzinfo=timezone.utc)
    listed = ("title", "current_price", "original_price", "in_stock", "is_active", "updated_at")
    known = products.select(
        "uuid",
        "catalog_key",
        "product_url",
        pl.struct(listed).alias("listed"),
        pl.lit("found").alias("status"),
        pl.lit(then, dtype=DETAIL_SCHEMA["looked_up_at"]).alias("looked_up_at"),
        pl.concat_str(pl.lit("of "), "uuid").alias("description"),
    )
    return pl.concat([DETAIL_SCHEMA.to_frame(), known], how="diagonal")


class TestRows:
    def test_there_is_one_for_each_product_in_the_order_of_the_snapshot(
        self, catalogs: Sandbox, tmp_path: Path
    ) -> None:
        products = products_of(catalogs, "strada", "northpeak", "voltaic").sample(
            fraction=1, shuffle=True, seed=1
        )
        found = detail_scan(catalogs, products)
        before = datetime.now(timezone.utc)
        found.frame.sink_parquet(tmp_path / "details.parquet")
        frame = pl.read_parquet(tmp_path / "details.parquet")

        assert frame.schema == DETAIL_SCHEMA
        keys = ["uuid", "catalog_key", "product_url"]
        assert_frame_equal(frame.select(keys), products.select(keys))
        assert set(frame["status"]) == {"found"}
        assert frame["error"].null_count() == 357
        assert frame["description"].count() > 300
        assert frame["looked_up_at"].is_between(before, datetime.now(timezone.utc)).all()
        assert_frame_equal(
            frame.select(pl.col("listed").struct.unnest()),
            products.select(*DETAIL_SCHEMA["listed"].to_schema()),  # type: ignore[attr-defined]
        )
        for name in ("title", "current_price", "updated_at", "brand"):
            assert_frame_equal(frame.select(name), products.select(name))
        shops = dict(frame.select("catalog_key", "catalog_display_name").unique().rows())
        assert shops["northpeak"] == "Northpeak Outfitters"
        assert len(shops) == 3

    def test_the_statistics_tell_what_happened(self, sandbox: Sandbox) -> None:
        sandbox.inject(Fault("status", 503, times=3, path=LOOKUP))
        reports: list[DetailStatistics] = []
        found = detail_scan(sandbox, products_of(sandbox), report=reports.append)
        found.frame.collect()

        statistics = found.statistics
        assert (statistics.products, statistics.rows, statistics.found) == (60, 60, 60)
        assert (statistics.requests, statistics.retries) == (63, 3)
        assert (statistics.looked_up, statistics.carried_over) == (60, 0)
        assert (statistics.gone, statistics.mismatched, statistics.failed) == (0, 0, 0)
        assert statistics.complete
        assert reports[-1] is statistics

    def test_a_long_read_is_reported_while_it_goes_on(self, sandbox: Sandbox) -> None:
        rows: list[int] = []
        found = detail_scan(
            sandbox,
            products_of(sandbox, "strada", "northpeak"),
            report=lambda statistics: rows.append(statistics.rows),
        )
        found.report_interval_seconds = 0.0
        found.frame.collect()
        assert rows[-1] == 290
        assert len(set(rows)) > 1

    def test_a_product_that_is_gone_is_a_row_and_no_failure(self, sandbox: Sandbox) -> None:
        products = products_of(sandbox)
        sandbox.grant("strada", products=45)
        found = detail_scan(sandbox, products, failure_threshold=0)
        frame = found.frame.collect()

        gone = frame.filter(pl.col("status") == "gone")
        assert set(gone["product_url"]) == set(products["product_url"][45:])
        assert gone["error"].count() == gone["title"].count() == 0
        assert gone["looked_up_at"].count() == gone["listed"].count() == 15
        assert (found.statistics.gone, found.statistics.found) == (15, 45)

    def test_one_that_fails_after_all_retries_is_a_row_that_says_why(
        self, sandbox: Sandbox
    ) -> None:
        sandbox.inject(Fault("status", 500, times=3, path=LOOKUP))
        found = detail_scan(sandbox, products_of(sandbox), ONCE)
        failed = found.frame.filter(pl.col("status") == "failed").collect()

        assert len(failed) == found.statistics.failed == 3
        for url, error in failed.select("product_url", "error").rows():
            assert error.startswith(f"The product at {url} failed: 500 Internal Server Error")
        assert failed["description"].count() == 0
        assert failed["looked_up_at"].count() == 3
        assert found.statistics.found == 57

    def test_an_answer_that_is_wrong_or_cut_is_about_its_product_only(
        self, sandbox: Sandbox
    ) -> None:
        sandbox.inject(Fault("wrong_type", times=1, path=LOOKUP))
        sandbox.inject(Fault("cut", times=1, path=LOOKUP))
        found = detail_scan(sandbox, products_of(sandbox))
        errors = found.frame.collect()["error"].drop_nulls().to_list()
        assert len(errors) == 1
        assert "a wrong product.currentPrice" in errors[0]
        assert (found.statistics.found, found.statistics.retries) == (59, 1)

    def test_an_answer_about_another_product_is_not_stored_under_its_name(
        self, sandbox: Sandbox
    ) -> None:
        products = products_of(sandbox)
        true = products["uuid"][7]
        other = pl.when(pl.col("uuid") == true).then(pl.lit("u-7")).otherwise("uuid")
        found = detail_scan(sandbox, products.with_columns(other.alias("uuid")))
        row = found.frame.filter(pl.col("uuid") == "u-7").collect().row(0, named=True)

        assert row["status"] == "mismatch"
        assert row["error"] == f"The address leads to another product, {true!r}."
        assert row["title"] is row["description"] is None
        assert (found.statistics.mismatched, found.statistics.found) == (1, 59)

    def test_an_address_of_several_products_is_looked_up_once(self, sandbox: Sandbox) -> None:
        products = products_of(sandbox, "strada", "northpeak")
        twin = products.head(1).with_columns(pl.lit("twin").alias("uuid"))
        again = pl.concat([products, products.head(1), twin])
        found = detail_scan(sandbox, again)
        frame = found.frame.collect()

        assert len(lookups(sandbox)) == len(set(lookups(sandbox))) == 290
        assert frame["uuid"].to_list() == again["uuid"].to_list()
        assert frame["status"].to_list() == ["found"] * 291 + ["mismatch"]
        assert_frame_equal(frame[0], frame[290])

    @pytest.mark.parametrize(
        ("url", "status", "error"),
        [
            ("", "failed", "url must not be empty"),
            (" \n", "failed", "url must not be empty"),
            (None, "failed", "url must not be empty"),
            ("nonsense", "failed", "422 invalid_product_url"),
            ("http://[::1", "failed", "422 invalid_product_url"),
            ("https://shop.example/\0\r\n?ä=\u2028", "gone", None),
        ],
    )
    def test_an_odd_address_is_a_row_as_well(
        self, sandbox: Sandbox, url: str | None, status: str, error: str | None
    ) -> None:
        products = products_of(sandbox).head(50)
        odd = made_up("odd", "odd too").with_columns(pl.lit(url, pl.String).alias("product_url"))
        frame = detail_scan(sandbox, pl.concat([odd, products])).frame.collect()
        assert frame["status"].to_list() == [status] * 2 + ["found"] * 50
        assert frame["product_url"].to_list()[:2] == [url] * 2
        for text in frame["error"][:2]:
            assert text == error or (error and error in text)

    def test_an_empty_address_and_none_at_all_are_alike(self, sandbox: Sandbox) -> None:
        products = pl.concat(
            [made_up("a").with_columns(product_url=pl.lit(url, pl.String)) for url in ("", None)]
        )
        frame = detail_scan(sandbox, products, failure_threshold=1).frame.collect()
        assert frame["status"].to_list() == ["failed"] * 2

    def test_unknown_fields_are_counted_and_lose_nothing(self, sandbox: Sandbox) -> None:
        products = products_of(sandbox)
        plain = detail_scan(sandbox, products).frame.collect().drop("looked_up_at")
        sandbox.inject(Fault("unknown_fields", path=LOOKUP))
        found = detail_scan(sandbox, products)
        assert_frame_equal(found.frame.collect().drop("looked_up_at"), plain)
        unknown = found.statistics.unknown_fields
        assert unknown["addedWithoutNotice"] == unknown["product.addedWithoutNotice"] == 60
        assert unknown["product.brand.addedWithoutNotice"] > 50

    def test_an_empty_snapshot_has_the_whole_schema(self, sandbox: Sandbox, tmp_path: Path) -> None:
        found = detail_scan(sandbox, PRODUCT_SCHEMA.to_frame())
        assert found.frame.collect(engine="in-memory").schema == DETAIL_SCHEMA
        assert found.frame.select("uuid").collect(engine="streaming").height == 0
        found.frame.sink_parquet(tmp_path / "empty.parquet")
        assert pl.read_parquet(tmp_path / "empty.parquet").schema == DETAIL_SCHEMA
        assert found.statistics.complete

    def test_products_without_a_column_are_refused_by_its_name(self, sandbox: Sandbox) -> None:
        found = detail_scan(sandbox, products_of(sandbox).drop("uuid", "is_active"))
        with pytest.raises(
            ValueError, match=r"^The products have no column uuid, is_active: .*PRODUCT_SCHEMA\.$"
        ):
            found.frame.collect()


class TestFailures:
    def test_too_many_end_it_as_soon_as_they_are_too_many(self, sandbox: Sandbox) -> None:
        products = products_of(sandbox, "strada", "northpeak")
        sandbox.inject(Fault("status", 500, path=LOOKUP))
        found = detail_scan(sandbox, products, ONCE)
        with pytest.raises(OctogenSnapshotError) as caught:
            found.frame.collect()

        # Lookups that were on their way may fail as well before it ends.
        assert re.fullmatch(
            r"More than 5 % of the lookups failed: (1[5-9]|2[0-3]) of 290; the first: The product "
            r"at https://\S+ failed: 500 Internal Server Error, request \S+\. The service failed: "
            r"try again later\. Nothing was published, the snapshot before is untouched: run "
            r"again, or raise failure_threshold\.",
            str(caught.value),
        )
        assert 15 <= len(lookups(sandbox)) <= 15 + 8
        assert 15 <= found.statistics.requests <= 15 + 8
        assert not found.statistics.complete

    @pytest.mark.parametrize(("failing", "is_too_many"), [(29, False), (30, True)])
    def test_the_threshold_itself_is_not_too_many(
        self, sandbox: Sandbox, failing: int, is_too_many: bool
    ) -> None:
        products = products_of(sandbox, "northpeak").head(100)
        sandbox.inject(Fault("status", 500, times=failing, path=LOOKUP))
        found = detail_scan(sandbox, products, ONCE, failure_threshold=0.29)
        if is_too_many:
            with pytest.raises(OctogenSnapshotError, match=r"More than 29 % .*: 3\d of 100;"):
                found.frame.collect()
        else:
            assert Counter(found.frame.collect()["status"]) == {"found": 71, "failed": 29}

    def test_with_a_threshold_of_all_none_is_too_many(self, sandbox: Sandbox) -> None:
        products = products_of(sandbox)
        sandbox.inject(Fault("status", 503, path=LOOKUP))
        found = detail_scan(sandbox, products, ONCE, failure_threshold=1)
        assert set(found.frame.collect()["status"]) == {"failed"}

    @pytest.mark.parametrize(("failing", "is_too_many"), [(3, False), (4, True)])
    def test_rows_that_are_carried_over_count_as_lookups_that_did_not_fail(
        self, sandbox: Sandbox, failing: int, is_too_many: bool
    ) -> None:
        products = products_of(sandbox)
        before = detail_scan(sandbox, products).frame.collect()
        raised = products.with_columns(
            pl.when(pl.int_range(pl.len()) < 10).then(1.0).otherwise("current_price")
            .alias("current_price")
        )  # fmt: skip
        sandbox.inject(Fault("status", 500, times=failing, path=LOOKUP))
        found = detail_scan(sandbox, raised, ONCE, only_changed=True)
        if not is_too_many:
            assert collect_after(before.lazy(), found).height == 60
            return
        with pytest.raises(OctogenSnapshotError, match=r"5 % of the lookups failed: 4 of 60;"):
            collect_after(before.lazy(), found)

    @pytest.mark.parametrize(
        ("status", "error"),
        [
            (401, OctogenAuthenticationError),
            (402, OctogenInsufficientCreditError),
            (403, OctogenForbiddenError),
        ],
    )
    def test_what_is_wrong_for_all_products_ends_it_at_once(
        self, sandbox: Sandbox, status: int, error: type[Exception]
    ) -> None:
        products = products_of(sandbox)
        sandbox.inject(Fault("status", status, path=LOOKUP))
        found = detail_scan(sandbox, products, failure_threshold=1)
        with pytest.raises(error, match=f"^The product at https://.* failed: {status} "):
            found.frame.collect()
        assert len(lookups(sandbox)) <= 8
        assert not found.statistics.complete

    def test_an_address_of_the_service_that_is_wrong_makes_nothing_gone(
        self, sandbox: Sandbox
    ) -> None:
        lost = replace(connection(sandbox), base_url=f"{sandbox.base_url}/v2")
        found = DetailScan(products_of(sandbox).lazy(), lost)
        with pytest.raises(OctogenSnapshotError, match="failed: 404 Not Found"):
            found.frame.collect()

    def test_a_service_that_is_gone_ends_it_though_the_threshold_is_far(self) -> None:
        patient = RetryPolicy(attempts=3, deadline=0.3, first_delay=0.05)
        found = DetailScan(made_up(*map(str, range(5_000))).lazy(), replace(NOWHERE, retry=patient))
        with pytest.raises(OctogenSnapshotError) as caught:
            found.frame.collect()
        text = str(caught.value)
        assert text.startswith(
            "The service answered no lookup for 0.3 s, retries included; the last: The product at "
        )
        assert text.endswith(
            "Nothing was published, the snapshot before is untouched: run again when the service "
            "is back."
        )

    @pytest.mark.parametrize("share", [-0.1, 1.1, 5, float("nan")])
    def test_a_threshold_that_is_no_share_is_refused(self, share: float) -> None:
        with pytest.raises(
            ValueError, match=rf"failure_threshold must be .* \(0\.05 is 5 %\), not {share}"
        ):
            DetailScan(made_up().lazy(), NOWHERE, failure_threshold=share)


class TestPace:
    @pytest.mark.parametrize("concurrency", [1, 3])
    def test_so_many_lookups_are_on_their_way_at_a_time(self, concurrency: int) -> None:
        together = threading.Barrier(concurrency)
        active, most = [], []

        def answer(body: dict[str, Any]) -> bytes:
            uuid = body["url"].rpartition("/")[2]
            product = {"uuid": uuid, "productUrl": body["url"]}
            if uuid != "0":  # the first one is alone
                active.append(body)
                most.append(len(active))
                together.wait(30)
                active.pop()
                together.wait(30)
            return json.dumps(
                {"catalogKey": "a", "catalogDisplayName": "A", "product": product}
            ).encode()

        products = made_up(*map(str, range(7)))
        with service(answer) as base_url:
            at_once = replace(
                NOWHERE, base_url=base_url, concurrency=concurrency, refusals=ServiceRefusals()
            )
            frame = DetailScan(products.lazy(), at_once).frame.collect()
        assert set(frame["status"]) == {"found"}
        assert max(most) == concurrency

    def test_the_budget_of_the_organisation_is_kept(self, sandbox: Sandbox) -> None:
        products = products_of(sandbox).head(12)
        sandbox.set_rate_limit(600)
        found = DetailScan(products.lazy(), connection(sandbox, reserve=0.999))
        assert set(found.frame.collect()["status"]) == {"found"}
        assert found.statistics.rate_limit_wait_seconds > 0
        assert found.statistics.retries == 0
        received = [request for request in sandbox.requests if request.path == LOOKUP]
        assert {request.status for request in received} == {200}


class Place:
    """A place that has a details snapshot, perhaps one that cannot be found."""

    def __init__(self, latest: pl.LazyFrame | OctogenSnapshotError | None) -> None:
        self._latest = latest
        self.lines: list[str] = []

    def page_store(self, clock: Callable[[], datetime]) -> PageStore:
        raise AssertionError

    def latest(self) -> pl.LazyFrame | None:
        if isinstance(self._latest, OctogenSnapshotError):
            raise self._latest
        return self._latest

    def latest_provenance(self) -> dict[str, str]:
        raise AssertionError

    def log(self, line: str) -> None:
        self.lines.append(line)

    def warn(self, line: str) -> None:
        raise AssertionError(line)


def collect_after(previous: pl.LazyFrame | None, found: DetailScan) -> pl.DataFrame:
    """The rows of a scan whose place has a previous snapshot."""
    with found.reading(Place(previous)) as reading:
        return reading.frame.collect()


class TestOnlyChanged:
    @pytest.fixture
    def before(self, sandbox: Sandbox) -> pl.DataFrame:
        """The details of an hour ago."""
        frame = detail_scan(sandbox, products_of(sandbox)).frame.collect()
        return frame.with_columns(pl.col("looked_up_at") - timedelta(hours=1))

    @staticmethod
    def look_up(
        sandbox: Sandbox, products: pl.DataFrame, previous: pl.DataFrame
    ) -> tuple[pl.DataFrame, DetailStatistics, set[str]]:
        """The frame, the statistics, and what was looked up for them."""
        already = len(lookups(sandbox))
        found = detail_scan(sandbox, products, only_changed=True)
        frame = collect_after(previous.lazy(), found)
        return frame, found.statistics, set(lookups(sandbox)[already:])

    def test_without_a_change_nothing_is_looked_up(
        self, sandbox: Sandbox, before: pl.DataFrame, tmp_path: Path
    ) -> None:
        before.write_parquet(tmp_path / "before.parquet")
        frame, statistics, asked = self.look_up(
            sandbox, products_of(sandbox), pl.read_parquet(tmp_path / "before.parquet")
        )
        assert asked == set()
        assert_frame_equal(frame, before)
        assert (statistics.carried_over, statistics.looked_up, statistics.rows) == (60, 0, 60)
        assert (statistics.found, statistics.requests) == (60, 0)

    @pytest.mark.parametrize(
        ("column", "value"),
        [
            ("title", "Another title"),
            ("current_price", 1.25),
            ("original_price", None),
            ("in_stock", True),
            ("is_active", False),
            ("updated_at", datetime(2026, 11, 25, tzinfo=timezone.utc)),
            ("product_url", "https://shop.example/moved"),
        ],
    )
    def test_a_product_that_is_listed_differently_is_looked_up(
        self, sandbox: Sandbox, before: pl.DataFrame, column: str, value: Any
    ) -> None:
        products = products_of(sandbox)
        becomes = pl.lit(value, PRODUCT_SCHEMA[column])
        changed = products.filter(pl.col(column).ne_missing(becomes))["uuid"][0]
        products = products.with_columns(
            pl.when(pl.col("uuid") == changed).then(becomes).otherwise(column).alias(column)
        )
        frame, statistics, asked = self.look_up(sandbox, products, before)

        is_changed = pl.col("uuid") == changed
        row = frame.filter(is_changed).row(0, named=True)
        assert asked == {row["product_url"]}
        assert row["looked_up_at"] > before["looked_up_at"].max()
        assert (row if column == "product_url" else row["listed"])[column] == value
        assert_frame_equal(frame.filter(~is_changed), before.filter(~is_changed))
        assert (statistics.carried_over, statistics.looked_up) == (59, 1)

    def test_what_is_new_and_what_was_not_found_is_looked_up_and_what_left_is_left_out(
        self, sandbox: Sandbox, before: pl.DataFrame
    ) -> None:
        products = products_of(sandbox)
        new, failed, mismatched, gone, left = products["product_url"][3, 20, 21, 22, 40]
        status = (
            pl.when(pl.col("product_url") == failed).then(pl.lit("failed"))
            .when(pl.col("product_url") == mismatched).then(pl.lit("mismatch"))
            .when(pl.col("product_url") == gone).then(pl.lit("gone"))
            .otherwise("status")
        )  # fmt: skip
        previous = before.filter(pl.col("product_url") != new).with_columns(status.alias("status"))
        products = products.filter(pl.col("product_url") != left)
        frame, statistics, asked = self.look_up(sandbox, products, previous)

        assert asked == {new, failed, mismatched, gone}
        assert frame["product_url"].to_list() == products["product_url"].to_list()
        assert_frame_equal(
            frame.drop("looked_up_at"),
            before.filter(pl.col("product_url") != left).drop("looked_up_at"),
        )
        assert (statistics.carried_over, statistics.looked_up) == (55, 4)

    def test_another_order_and_repeated_products_get_their_own_rows(self) -> None:
        count = 3 * ROW_GROUP_SIZE + 700
        products = made_up(*map(str, range(count)), title="T", current_price=9.5)
        previous = looked_up_before(products.sample(fraction=1, shuffle=True, seed=3))
        products = pl.concat([products, products.head(2)])
        found = DetailScan(products.lazy(), NOWHERE, only_changed=True)
        frame = collect_after(pl.concat([previous, previous.head(1)]).lazy(), found)
        assert frame["uuid"].to_list() == products["uuid"].to_list()
        assert (frame["description"] == "of " + frame["uuid"]).all()
        assert found.statistics.carried_over == count + 2

    def test_another_catalogs_product_of_the_same_uuid_is_another_product(self) -> None:
        products = made_up("a", catalog_key="acme")
        found = DetailScan(products.lazy(), NOWHERE, only_changed=True, failure_threshold=1)
        previous = looked_up_before(made_up("a", catalog_key="zen")).lazy()
        assert collect_after(previous, found)["status"].to_list() == ["failed"]

    @pytest.mark.parametrize("previous", ["none", "fewer columns", "another type", "damaged"])
    def test_without_a_usable_previous_everything_is_looked_up(
        self, sandbox: Sandbox, before: pl.DataFrame, tmp_path: Path, previous: str
    ) -> None:
        path = tmp_path / "before.parquet"
        match previous:
            case "fewer columns":
                before.drop("videos").write_parquet(path)
            case "another type":
                listed = pl.col("listed").struct.field("title").alias("listed")
                before.with_columns(listed).write_parquet(path)
            case "damaged":
                path.write_bytes(b"PAR1 and no more")
        found = detail_scan(sandbox, products_of(sandbox), only_changed=True)
        frame = collect_after(pl.scan_parquet(path) if previous != "none" else None, found)
        assert set(frame["status"]) == {"found"}
        assert (found.statistics.carried_over, found.statistics.looked_up) == (0, 60)

    @pytest.mark.parametrize(
        ("previous", "lines"),
        [
            (None, [r"Details: 60 products in 60 lookups, \$0\.12\b.*\."]),
            (
                DETAIL_SCHEMA.to_frame().lazy(),
                [r"Details: at most 60 products in 60 lookups, \$0\.12\b.*\."],
            ),
            (
                OctogenSnapshotError("It is damaged."),
                [
                    r"It is damaged\. Every product is looked up\.",
                    r"Details: 60 products in 60 lookups, \$0\.12\b.*\.",
                ],
            ),
        ],
    )
    def test_the_log_says_beforehand_what_the_lookups_take(
        self, sandbox: Sandbox, previous: Any, lines: list[str]
    ) -> None:
        place = Place(previous)
        found = detail_scan(sandbox, products_of(sandbox), only_changed=True)
        with found.reading(place) as reading:
            assert set(reading.frame.collect()["status"]) == {"found"}
        assert len(place.lines) == len(lines)
        for line, pattern in zip(place.lines, lines, strict=True):
            assert re.fullmatch(pattern, line)

    def test_it_is_only_done_when_asked_for(self, sandbox: Sandbox, before: pl.DataFrame) -> None:
        found = detail_scan(sandbox, products_of(sandbox))
        last = before["looked_up_at"].max()
        assert collect_after(before.lazy(), found).filter(pl.col("looked_up_at") <= last).is_empty()
        assert found.statistics.carried_over == 0


@pytest.fixture(scope="module")
def shop() -> Iterator[tuple[Sandbox, pl.DataFrame]]:
    """A small catalog that no test changes, and its products."""
    with Sandbox(catalogs={"voltaic": 40}, generation="seed") as running:
        yield running, products_of(running, "voltaic")


class TestFrame:
    @pytest.mark.parametrize("engine", ["in-memory", "streaming"])
    def test_queries_of_it_are_those_of_the_whole(
        self, shop: tuple[Sandbox, pl.DataFrame], engine: Any
    ) -> None:
        frame = detail_scan(*shop).frame
        whole = frame.collect().drop("looked_up_at")
        queries: list[Callable[[pl.LazyFrame], pl.LazyFrame]] = [
            lambda it: it.select("uuid", "tags"),
            lambda it: it.filter(pl.col("current_price") > 100).select("title"),
            lambda it: it.head(7).select("uuid", "status"),
            lambda it: it.filter(pl.col("status") == "gone").select("uuid"),
            lambda it: it.select(pl.len()),
            lambda it: it.head(3).select(pl.len()),
        ]
        for query in queries:
            expected = query(whole.lazy()).collect()
            assert_frame_equal(query(frame).collect(engine=engine), expected)

    def test_head_looks_up_no_more_than_it_needs(self, shop: tuple[Sandbox, pl.DataFrame]) -> None:
        already = len(lookups(shop[0]))
        assert detail_scan(*shop).frame.head(3).collect().height == 3
        assert lookups(shop[0])[already:] != []
        assert set(lookups(shop[0])[already:]) == set(shop[1]["product_url"][:3])

    async def test_it_can_be_executed_again_and_inside_an_event_loop(
        self, shop: tuple[Sandbox, pl.DataFrame]
    ) -> None:
        found = detail_scan(*shop)
        assert found.frame.collect().height == found.frame.collect().height == 40
        assert found.statistics.rows == 40

    def test_a_pickled_one_holds_no_key(
        self, shop: tuple[Sandbox, pl.DataFrame], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        sandbox, products = shop
        scan = detail_scan(
            sandbox, products, only_changed=True, failure_threshold=0.5, report=lambda _: None
        )
        frozen = scan.frame.serialize()
        assert sandbox.api_key.encode() not in frozen
        monkeypatch.setenv("OCTO_API_KEY", sandbox.api_key)
        assert pl.LazyFrame.deserialize(frozen).collect().height == 40
        copy = pickle.loads(pickle.dumps(scan))
        assert (copy.failure_threshold, copy.only_changed) == (0.5, True)


STOPPED_EARLY = """
import polars as pl
from octogen_dagster.api.credentials import ApiKey
from octogen_dagster.api.connection import Connection
from octogen_dagster.frames.details.scan import DetailScan
connection = Connection(api_key=ApiKey("{key}"), base_url="{url}")
frame = DetailScan(pl.scan_parquet("{path}"), connection).frame
found = frame.filter(pl.col("title").str.len_chars() > 0).head(3).collect()
assert found.height == 3, found
print("found")
"""


def test_a_process_that_stops_early_ends_cleanly(sandbox: Sandbox, tmp_path: Path) -> None:
    path = tmp_path / "products.parquet"
    products = products_of(sandbox, "strada", "northpeak")
    pl.concat([products] * 20).write_parquet(path)
    program = STOPPED_EARLY.format(key=sandbox.api_key, url=sandbox.base_url, path=path)
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "found\n", "")
