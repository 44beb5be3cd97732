"""Details have a row for each product, and nothing is published where too many lookups failed.

The products are a snapshot of the test's own asset; the service is a sandbox that has them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest
from polars.testing import assert_frame_equal

import octogen_dagster as od
from octogen_dagster.sandbox.faults import Fault
from octogen_dagster.sandbox.server import Sandbox
from octogen_dagster.schemas import DETAIL_SCHEMA, PRODUCT_SCHEMA
from tests import results
from tests.api.servers import RawServer, Received
from tests.projects import Project
from tests.results import materialized, octogen_at

LOOKUP = "/products/lookup"
ONCE = {"attempts": 1}
LISTED = ("title", "current_price", "original_price", "in_stock", "is_active", "updated_at")


@dataclass
class Result:
    """A run: the run itself, what it asked for, its log, and the snapshot that is there then."""

    run: dg.ExecuteInProcessResult
    asked: list[str]
    log: str
    frame: pl.DataFrame | None

    @property
    def numbers(self) -> dict[str, Any]:
        return results.figures(self.run, "details")

    @property
    def rows(self) -> dict[str, dict[str, Any]]:
        assert self.frame is not None
        return {row["uuid"]: row for row in self.frame.iter_rows(named=True)}


@dataclass
class Shop:
    """A sandbox, its products, and the folder of the snapshots."""

    sandbox: Sandbox
    folder: Path
    capfd: pytest.CaptureFixture[str]

    @property
    def products(self) -> pl.DataFrame:
        search = od.ProductSearch(catalogs=["strada"])
        key, base_url = self.sandbox.api_key, self.sandbox.base_url
        return od.scan_products(search, api_key=key, base_url=base_url).collect().sort("uuid")

    @property
    def path(self) -> Path:
        return self.folder / "details.parquet"

    def run(
        self, snapshot: pl.DataFrame, *, settings: dict[str, Any] | None = None, **options: Any
    ) -> Result:
        """Materialize the details of a snapshot of products."""

        @dg.asset
        def products() -> Any:
            return snapshot.lazy()

        details = od.build_product_details_asset(
            products, name="details", retry_policy=None, **options
        )
        octogen = octogen_at(self.sandbox, **settings or {})
        already = len(self._asked())
        self.capfd.readouterr()
        run = materialized([products, details], self.folder, octogen, raise_on_error=False)
        frame = pl.read_parquet(self.path) if self.path.exists() else None
        return Result(run, self._asked()[already:], self.capfd.readouterr().err, frame)

    def _asked(self) -> list[str]:
        received = (request for request in self.sandbox.requests if request.path == LOOKUP)
        return [request.body["url"] for request in received if request.body]


@pytest.fixture
def shop(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Iterator[Shop]:
    with Sandbox(catalogs={"strada": 60}, generation="current") as sandbox:
        yield Shop(sandbox, tmp_path, capfd)


def made_up(*urls: str | None) -> pl.DataFrame:
    """A snapshot of products that no service knows."""
    rows = [{"uuid": f"made up {n}", "product_url": url} for n, url in enumerate(urls)]
    return pl.DataFrame(rows, schema=PRODUCT_SCHEMA)


class TestRows:
    def test_each_product_has_a_row_with_its_listing_and_its_view(self, shop: Shop) -> None:
        before = datetime.now(UTC)
        result = shop.run(shop.products)
        assert result.frame is not None
        frame, products = result.frame.sort("uuid"), shop.products

        assert frame.schema == DETAIL_SCHEMA
        same = ["uuid", "catalog_key", "product_url", "title", "current_price", "updated_at"]
        assert_frame_equal(frame.select(same), products.select(same))
        listed = frame.select(pl.col("listed").struct.field(*LISTED))
        assert_frame_equal(listed, products.select(*LISTED))
        assert set(frame["status"]) == {"found"}
        assert frame["error"].null_count() == 60
        assert frame["description"].count() > 50
        assert frame["looked_up_at"].is_between(before, datetime.now(UTC)).all()
        assert sorted(result.asked) == sorted(products["product_url"])
        numbers = result.numbers
        assert numbers["found"] == numbers["looked_up"] == numbers["dagster/row_count"] == 60
        assert numbers["requests"] == numbers["charged_requests"] == 60
        assert numbers["cost_usd"] == pytest.approx(0.12)
        assert "Details: 60 products in 60 lookups, $0.12" in result.log
        assert "60 found, 0 gone, 0 failed, 0 carried over" in result.log

    def test_a_product_that_is_gone_is_a_row_and_no_failure(self, shop: Shop) -> None:
        products = shop.products
        shop.sandbox.grant("strada", products=45)
        result = shop.run(products, max_failed_percent=0)
        assert result.frame is not None
        gone = result.frame.filter(pl.col("status") == "gone")
        assert len(gone) == 15
        assert gone["error"].count() == gone["title"].count() == 0
        assert gone["listed"].count() == gone["looked_up_at"].count() == 15
        assert (result.numbers["gone"], result.numbers["found"]) == (15, 45)

    def test_one_that_fails_is_a_row_that_says_why(self, shop: Shop) -> None:
        shop.sandbox.inject(Fault("status", 500, times=2, path=LOOKUP))
        shop.sandbox.inject(Fault("wrong_type", times=1, path=LOOKUP))
        result = shop.run(shop.products, settings=ONCE)
        failed = [row for row in result.rows.values() if row["status"] == "failed"]
        errors = sorted(
            row["error"].removeprefix(f"The product at {row['product_url']} ") for row in failed
        )
        assert len(errors) == result.numbers["failed"] == 3
        assert errors[0].startswith("failed: 500 Internal Server Error")
        assert "an invalid field product.currentPrice" in errors[2]
        assert result.numbers["first_error"] in {row["error"] for row in failed}
        assert {row["title"] for row in failed} == {None}


class TestFailures:
    @pytest.mark.slow
    @pytest.mark.parametrize(("failing", "is_too_many"), [(3, False), (4, True)])
    def test_more_than_the_threshold_publish_nothing(
        self, shop: Shop, failing: int, is_too_many: bool
    ) -> None:
        before = shop.run(shop.products).frame
        shop.sandbox.inject(Fault("status", 500, times=failing, path=LOOKUP))
        result = shop.run(shop.products, settings=ONCE)
        assert result.run.success is not is_too_many
        if is_too_many:
            error = results.failure(result.run)
            assert all(
                part in error for part in ("5 %", "4 of 60", "The product at", "max_failed_percent")
            )
            assert before is not None
            assert result.frame is not None
            assert result.frame.equals(before)
        else:
            assert result.numbers["failed"] == failing

    def test_a_service_that_is_silent_is_not_asked_much_more_than_fifty_times(
        self, shop: Shop
    ) -> None:
        asked: list[Received] = []

        def reset(request: Received) -> list[bytes]:
            asked.append(request)
            return []

        urls = [f"https://shop.example/{number}" for number in range(5_000)]
        with RawServer(reset) as server:

            @dg.asset
            def listed() -> Any:
                return made_up(*urls).lazy()

            details = od.build_product_details_asset(
                listed, name="details", max_failed_percent=100, retry_policy=None
            )
            octogen = octogen_at(server, attempts=1, concurrency=4)
            result = materialized([listed, details], shop.folder, octogen, raise_on_error=False)
        assert "50 lookups in a row failed" in results.failure(result)
        assert 50 <= len(asked) < 100

    def test_a_budget_is_kept_and_what_it_leaves_is_said_before(self, shop: Shop) -> None:
        result = shop.run(shop.products, settings={"budget_usd": 0.05})
        assert "$0.05 of the budget" in result.log
        assert "budget" in results.failure(result.run)
        assert len(result.asked) == 25
        assert result.frame is None


CHANGES: dict[str, Any] = {
    "brand": {"name": "Another brand", "slug": None, "url": None, "description": None},
    "category_path": ["Apparel & Accessories", "Boots"],
    "colors": ["Teal"],
    "sizes": ["38"],
    "currency": "NOK",
    "images": [{"url": "https://shop.example/another.jpg"}],
    "title": "Another title",
    "current_price": 1.25,
    "original_price": 9000.0,
    "is_active": False,
    "updated_at": datetime(2026, 11, 25, tzinfo=UTC),
    "product_url": "https://shop.example/moved",
    "catalog_key": "another",
}


class TestOnlyChanged:
    @pytest.mark.slow
    def test_each_product_that_is_listed_differently_is_looked_up(self, shop: Shop) -> None:
        before, products = shop.run(shop.products).rows, shop.products
        changed = dict(zip(products["uuid"], CHANGES.items(), strict=False))
        for uuid, (column, value) in changed.items():
            becomes = pl.lit(value, PRODUCT_SCHEMA[column])
            products = products.with_columns(
                pl.when(pl.col("uuid") == uuid).then(becomes).otherwise(column).alias(column)
            )
        result = shop.run(products, only_changed=True)

        after = result.rows
        assert sorted(result.asked) == sorted(after[uuid]["product_url"] for uuid in changed)
        for uuid, (column, value) in changed.items():
            row = after.pop(uuid)
            assert row["looked_up_at"] > before.pop(uuid)["looked_up_at"]
            if column in LISTED:
                assert row["listed"][column] == value
        assert after == before

    @pytest.mark.slow
    def test_another_schema_costs_no_lookup_of_what_did_not_change(self, shop: Shop) -> None:
        products = shop.products
        before = shop.run(products).rows
        listed, details = pl.col("listed").struct, pl.col("details").struct
        self.rewrite(
            shop,
            listed=pl.struct(listed.field("title", "current_price", "updated_at")),
            details=pl.struct(details.field("fit", "materials")),
            videos=None,
            clips=pl.lit("of another version"),
        )
        one = products["uuid"][7]
        title = pl.when(pl.col("uuid") == one).then(pl.lit("Another")).otherwise("title")
        changed = products.with_columns(title.alias("title"))
        result = shop.run(changed, only_changed=True)

        after = result.rows
        assert result.asked == [after.pop(one)["product_url"]]
        assert (
            "previous details snapshot: details.dimensions, details.patterns, videos" in result.log
        )
        del before[one]
        for uuid, row in before.items():
            row["videos"] = row["details"] = None
            after[uuid]["details"] = None
        assert after == before
        assert shop.run(changed, only_changed=True).asked == []

    @pytest.mark.slow
    def test_rows_of_another_type_are_looked_up_and_the_log_says_why(self, shop: Shop) -> None:
        products = shop.products
        shop.run(products)
        is_one = pl.col("uuid") == products["uuid"][7]
        price = pl.when(is_one).then(pl.lit("dear")).otherwise(pl.col("current_price").cast(str))
        self.rewrite(shop, current_price=price)
        result = shop.run(products, only_changed=True)
        assert result.asked == [products["product_url"][7]]

        self.rewrite(shop, images=pl.lit("one"))
        result = shop.run(products, only_changed=True)
        assert len(result.asked) == 60
        assert "its column images has the type String" in result.log

    @staticmethod
    def rewrite(shop: Shop, **columns: pl.Expr | None) -> None:
        """Write the details snapshot again with other columns."""
        gone = [name for name, column in columns.items() if column is None]
        others = {name: column for name, column in columns.items() if column is not None}
        frame = pl.read_parquet(shop.path).with_columns(**others).drop(gone)
        metadata = pl.read_parquet_metadata(shop.path)
        metadata.pop("ARROW:schema", None)  # Polars 1 shows it, and would write it again
        frame.write_parquet(shop.path, metadata=metadata)

    @pytest.mark.slow
    def test_what_is_new_or_was_not_found_is_looked_up_and_what_left_is_left_out(
        self, shop: Shop
    ) -> None:
        products = shop.products
        shop.run(products.tail(59))
        new, failed, mismatched, gone, left = products["product_url"][0, 20, 21, 22, 40]
        status = pl.col("product_url").replace_strict(
            {failed: "failed", mismatched: "mismatch", gone: "gone"}, default=pl.col("status")
        )
        metadata = pl.read_parquet_metadata(shop.path)
        stored = pl.read_parquet(shop.path).with_columns(status.alias("status"))
        stored.write_parquet(shop.path, metadata=metadata)

        result = shop.run(products.filter(pl.col("product_url") != left), only_changed=True)

        assert set(result.asked) == {new, failed, mismatched, gone}
        assert Counter(row["status"] for row in result.rows.values()) == {"found": 59}
        assert result.numbers["carried_over"] == 55
        assert left not in {row["product_url"] for row in result.rows.values()}


# Details follow the partitions of their products, or a selection of them.


@pytest.fixture
def shops() -> Iterator[Sandbox]:
    """Yield a sandbox that refuses no field of a lookup."""
    with Sandbox(catalogs={"northpeak": 230, "strada": 120}, generation="current") as running:
        yield running


@pytest.mark.long
@pytest.mark.parametrize("damaged", [False, True])
def test_the_details_of_a_day_carry_rows_over_from_the_last_earlier_day(
    project: Project, damaged: bool
) -> None:
    today, before = (f"{datetime.now(UTC) - timedelta(days=days):%Y-%m-%d}" for days in (0, 3))
    products = od.build_products_asset(
        "products", od.ProductSearch(catalogs=["strada"]), partitions_def=od.snapshot_days(before)
    )
    details = od.build_product_details_asset(products, only_changed=True)

    def carried_over() -> int:
        result = project.run([products, details], partition_key=today)
        return int(results.metadata(result, "products_details")["octogen/carried_over"])

    carried_over()
    folder = project.folder / "products_details"
    (folder / f"{today}.parquet").rename(folder / f"{before}.parquet")
    if damaged:
        (folder / f"{before}.parquet").write_bytes(b"PAR1")
    assert carried_over() == (0 if damaged else 120)


@pytest.mark.slow
def test_each_partition_has_its_own_details(project: Project, shops: Sandbox) -> None:
    shops.grant("a/b", products=7)
    project.instance.add_dynamic_partitions("octogen_catalogs", ["strada", "a%2Fb"])
    products = od.build_products_asset("products", partitions_def=od.catalog_partitions)
    details = od.build_product_details_asset(products, only_changed=True)
    for key, count in (("strada", 120), ("a%2Fb", 7), ("a%2Fb", 7)):
        result = project.run([products, details], partition_key=key)
        shown = results.metadata(result, "products_details")
        assert shown["dagster/partition_row_count"] == count
    assert shown["octogen/carried_over"] == 7
    frames = map(pl.read_parquet, (project.folder / "products_details").iterdir())
    catalogs = [frame["catalog_key"].unique().to_list() for frame in frames]
    assert sorted(catalogs) == [["a/b"], ["strada"]]
