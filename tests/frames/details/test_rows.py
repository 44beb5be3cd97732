"""Rows of a details snapshot, looked up or carried over."""

from __future__ import annotations

from dataclasses import replace

import polars as pl
import pytest

from octogen_dagster.frames.columns import DETAIL_SCHEMA
from octogen_dagster.frames.details.lookups import Lookup
from octogen_dagster.frames.details.rows import (
    PRODUCTS_PER_BATCH,
    ROW_GROUP_SIZE,
    ListedProducts,
    ReusableRows,
)
from tests.frames.details.made_up import (
    LOOKED_UP_AT,
    InstantReader,
    found,
    products,
    row_of,
    rows_of,
    url_of,
)

NOTHING = DETAIL_SCHEMA.to_frame()
LISTED = ("title", "current_price", "original_price", "in_stock", "is_active", "updated_at")


def listed(snapshot: pl.DataFrame) -> pl.DataFrame:
    """All products as `ListedProducts` yields them."""
    return pl.concat(list(ListedProducts(snapshot.lazy())))


def previous_rows(snapshot: pl.DataFrame, status: str = "found") -> pl.DataFrame:
    """A previous details snapshot of products."""
    rows = snapshot.select(
        "uuid",
        "catalog_key",
        "product_url",
        pl.lit(status).alias("status"),
        pl.struct(LISTED).alias("listed"),
        pl.concat_str(pl.lit("of "), "uuid").alias("description"),
    )
    return pl.concat([NOTHING, rows], how="diagonal")


def look_up(url: str) -> Lookup:
    uuid = url.rpartition("/")[2]
    return found(uuid, title=f"Title of {uuid}")


class TestListedProducts:
    def test_they_are_counted_and_keep_their_order(self) -> None:
        snapshot = products(*map(str, range(12_345)))
        assert ListedProducts(snapshot.lazy()).count == 12_345
        assert listed(snapshot)["uuid"].equals(snapshot["uuid"])

    def test_products_that_share_an_address_are_marked(self) -> None:
        snapshot = pl.concat([products("a", "b", "c"), products("c")])
        assert listed(snapshot)["shares_address"].to_list() == [False, False, True, True]

    def test_the_listing_is_what_the_snapshot_says(self) -> None:
        frame = listed(products("a", title="T", current_price=9.5))
        listing = frame["listed"].to_list()[0]
        assert tuple(listing) == LISTED
        assert (listing["title"], listing["current_price"]) == ("T", 9.5)

    def test_a_snapshot_without_a_column_is_refused_by_its_name(self) -> None:
        snapshot = products("a").drop("uuid", "in_stock").lazy()
        with pytest.raises(ValueError, match=r"^The products have no column uuid, in_stock: "):
            ListedProducts(snapshot)


class TestReusableRows:
    def reusable(self, previous: pl.DataFrame, wanted: pl.DataFrame) -> list[str]:
        return sorted(ReusableRows(previous.lazy()).of(listed(wanted))["uuid"])

    def test_they_are_those_of_unchanged_products(self) -> None:
        snapshot = products("a", "b", "c", title="T")
        changed = pl.concat([products("a", title="Another"), products("c", title="T")])
        assert self.reusable(previous_rows(snapshot), changed) == ["c"]

    @pytest.mark.parametrize("status", ["gone", "failed", "mismatch"])
    def test_a_product_that_was_not_found_has_none(self, status: str) -> None:
        snapshot = products("a")
        assert self.reusable(previous_rows(snapshot, status), snapshot) == []

    def test_rows_are_found_in_all_row_groups(self) -> None:
        snapshot = products(*(f"{number:05}" for number in range(2 * ROW_GROUP_SIZE + 10)))
        wanted = snapshot[[0, ROW_GROUP_SIZE - 1, ROW_GROUP_SIZE, 2 * ROW_GROUP_SIZE + 9]]
        assert self.reusable(previous_rows(snapshot), wanted) == wanted["uuid"].to_list()

    def test_without_a_previous_snapshot_there_are_none(self) -> None:
        rows = ReusableRows(NOTHING.lazy()).of(listed(products("a")))
        assert rows.is_empty()
        assert rows.schema == DETAIL_SCHEMA


class TestDetailRows:
    def test_looked_up_rows_are_in_the_order_of_the_products(self) -> None:
        snapshot = products(*map(str, range(2 * PRODUCTS_PER_BATCH + 1)))
        reader = InstantReader(look_up)
        frame, batches, _ = rows_of(snapshot, NOTHING, reader)
        assert frame.schema == DETAIL_SCHEMA
        assert frame["uuid"].equals(snapshot["uuid"])
        assert (frame["title"] == "Title of " + frame["uuid"]).all()
        assert set(frame["looked_up_at"]) == {LOOKED_UP_AT}
        assert set(frame["catalog_display_name"]) == {"Acme"}
        assert reader.urls == snapshot["product_url"].to_list()
        assert [len(batch.fresh) for batch in batches] == [PRODUCTS_PER_BATCH] * 2 + [1]

    def test_reusable_rows_are_carried_over_between_the_others(self) -> None:
        snapshot = products("a", "b", "c", "d")
        reader = InstantReader(look_up)
        frame, (batch,), _ = rows_of(snapshot, previous_rows(snapshot[[3, 1]]), reader)
        assert reader.urls == [url_of("a"), url_of("c")]
        assert frame["uuid"].to_list() == ["a", "b", "c", "d"]
        assert frame["description"].to_list() == [None, "of b", None, "of d"]
        assert (len(batch.carried), len(batch.fresh)) == (2, 2)

    def test_an_address_is_looked_up_once_in_the_whole_snapshot(self) -> None:
        first = products("a", *(f"x{number}" for number in range(PRODUCTS_PER_BATCH)))
        twin = products("a").with_columns(pl.lit("twin").alias("uuid"))
        reader = InstantReader(look_up)
        frame, batches, _ = rows_of(pl.concat([first, products("a"), twin]), NOTHING, reader)
        assert len(batches) == 2
        assert reader.urls.count(url_of("a")) == 1
        assert frame["status"].to_list()[-2:] == ["found", "mismatch"]
        assert frame["error"].to_list()[-1] == "The address leads to another product, 'a'."
        assert frame["title"].to_list()[-2:] == ["Title of a", None]

    def test_a_lookup_without_a_product_fills_only_its_own_columns(self) -> None:
        failed = InstantReader(lambda _: Lookup("failed", LOOKED_UP_AT, error="It is down."))
        frame, _, _ = rows_of(products("a", title="T"), NOTHING, failed)
        (row,) = frame.iter_rows(named=True)
        assert (row["status"], row["error"]) == ("failed", "It is down.")
        assert row["looked_up_at"] == LOOKED_UP_AT
        assert row["title"] is None
        assert row["listed"]["title"] == "T"


class TestEnvelope:
    def test_what_the_response_says_of_the_lookup_is_in_the_row(self) -> None:
        row, _ = row_of(
            found(
                "a",
                envelope={
                    "sourceBaseUrl": "https://shop.example",
                    "source": "indexed",
                    "requestedUrl": "https://shop.example/a?utm_source=x",
                    "normalizedUrl": "https://shop.example/a",
                    "matchedVia": "variant_url",
                    "warnings": ["slow"],
                },
            )
        )
        assert (row["status"], row["source"]) == ("found", "indexed")
        assert row["source_base_url"] == "https://shop.example"
        assert row["requested_url"] == "https://shop.example/a?utm_source=x"
        assert row["normalized_url"] == "https://shop.example/a"
        assert (row["matched_via"], row["warnings"]) == ("variant_url", ["slow"])
        assert row["resolved_url"] is row["canonical_url"] is row["resolution"] is None

    def test_a_product_that_is_gone_has_the_envelope_but_not_the_view(self) -> None:
        on_the_page = found(
            "a",
            title="From the page",
            envelope={"source": "on_demand", "resolution": {"method": "json_ld"}},
        )
        row, _ = row_of(replace(on_the_page, status="gone"))
        assert (row["status"], row["error"]) == ("gone", None)
        assert (row["source"], row["title"]) == ("on_demand", None)
        assert row["resolution"]["method"] == "json_ld"

    def test_a_mismatch_says_where_the_address_leads(self) -> None:
        row, _ = row_of(found("b", envelope={"resolvedUrl": "https://shop.example/b"}))
        assert (row["status"], row["title"]) == ("mismatch", None)
        assert row["error"] == "The address leads to another product, 'b'."
        assert row["resolved_url"] == "https://shop.example/b"

    def test_a_response_without_a_uuid_may_be_of_another_product(self) -> None:
        row, _ = row_of(found(None, envelope={"source": "indexed"}))
        assert (row["status"], row["title"]) == ("mismatch", None)
        assert row["error"] == "The response has no uuid, so it may be of another product."
