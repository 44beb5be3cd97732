"""Answers of both generations that no published model has, and those that are hard to read."""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime
from typing import Any

import pytest

from octogen_dagster import GrantedCatalogs, ShopCatalogs
from octogen_dagster.api.catalog_states import CatalogList, CatalogState
from octogen_dagster.api.models import (
    MerchantProductListItem,
    MerchantProductView,
    ProductImage,
    ProductReview,
)
from tests.contract.asked import asked

ITEM: dict[str, Any] = {"uuid": "u-1", "productUrl": "https://shop.example/1"}
NOON = datetime(2026, 3, 4, 12, tzinfo=UTC)
SEVEN = {"catalog": "seven", "displayName": "Seven", "productCount": 1}
NOON_TOO = {"catalog": "noon", "lastIndexedAt": "2026-03-04T12:00:00Z"}


def item(**fields: Any) -> MerchantProductListItem:
    """A product as the client reads it from a page."""
    page = asyncio.run(asked({"items": [ITEM | fields]}, lambda client: client.search_products()))
    return page.items[0]


def view(**fields: Any) -> MerchantProductView:
    """A product as the client reads it from a lookup."""
    answer = {"product": ITEM | fields}
    return asyncio.run(
        asked(answer, lambda client: client.lookup_product(ITEM["productUrl"]))
    ).product


def listed(*entries: dict[str, Any]) -> CatalogList:
    """The catalogs of a key."""
    return asyncio.run(asked(list(entries), GrantedCatalogs().fetch))


@pytest.mark.parametrize(
    "image",
    [
        "https://cdn.example/1.jpg",
        {"url": "https://cdn.example/1.jpg"},
        {"url": "https://cdn.example/1.jpg", "cdnUrl": None, "width": None, "mimeType": None},
    ],
)
def test_an_image_is_the_same_as_a_text_and_as_an_object(image: Any) -> None:
    product = item(images=[image], primaryImage=image)
    assert product.images == [ProductImage(url="https://cdn.example/1.jpg")]
    assert product.primary_image == ProductImage(url="https://cdn.example/1.jpg")


@pytest.mark.parametrize(
    ("text", "microsecond"),
    [
        ("2026-03-04T12:00:00", 0),
        ("2026-03-04t12:00:00z", 0),
        ("2026-03-04T14:00:00+02:00", 0),
        ("2026-03-04T12:00:00.5Z", 500_000),
        ("2026-03-04T12:00:00.123456789Z", 123_456),
    ],
)
def test_a_time_is_in_utc_and_one_without_a_zone_too(text: str, microsecond: int) -> None:
    moment = item(updatedAt=text).updated_at
    assert moment == NOON.replace(microsecond=microsecond)
    assert moment.tzinfo is UTC


def test_what_no_column_can_hold_is_null_with_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    early, much = "0001-01-01T00:00:07+05:00", 2**63 + 7
    reviews = [{"publishedAt": early, "rating": 4}] * 3
    with caplog.at_level(logging.WARNING):
        product = view(updatedAt=early, reviews=reviews, rating={"count": much, "average": 1})
    assert (product.uuid, product.updated_at) == ("u-1", None)
    assert product.reviews == [ProductReview(rating=4)] * 3
    assert product.rating
    assert (product.rating.count, product.rating.average) == (None, 1)
    messages = sorted(each.getMessage() for each in caplog.records if each.name.endswith(".models"))
    number, timestamp = messages
    assert str(much) in number
    assert early in timestamp
    assert all("null" in message for message in messages)


class TestTheListOfCatalogs:
    @pytest.mark.parametrize(
        "text", ["2026-03-04T12:00:00Z", "2026-03-04T14:00:00+02:00", "2026-03-04T12:00:00"]
    )
    @pytest.mark.parametrize("catalog", ["seven", 7])
    def test_a_time_may_have_any_zone_or_none(self, catalog: object, text: str) -> None:
        (state,) = listed({**SEVEN, "catalog": catalog, "lastIndexedAt": text}).catalogs
        assert (state.catalog, state.last_indexed_at) == (str(catalog), NOON)

    @pytest.mark.parametrize(
        "time", ["0001-01-01T00:00:00+05:00", "9999-12-31T23:00:00-05:00", "soon"]
    )
    def test_a_time_that_cannot_be_used_is_a_warning_and_stops_no_other(self, time: str) -> None:
        found = listed({**SEVEN, "lastIndexedAt": time}, NOON_TOO)
        assert [state.last_indexed_at for state in found.catalogs] == [None, NOON]
        (warning,) = found.warnings
        assert all(part in warning for part in ("'seven'", "lastIndexedAt", repr(time)))
        assert found.failure is None

    @pytest.mark.parametrize(
        ("count", "read"), [(2**63 - 1, 2**63 - 1), (2**63, None), (10**30, None)]
    )
    def test_a_count_that_no_column_can_hold_is_unknown(self, count: int, read: int | None) -> None:
        found = listed({**SEVEN, "productCount": count}, SEVEN)
        assert [state.product_count for state in found.catalogs] == [read, 1]


class TestAShop:
    @pytest.mark.parametrize("time", [None, "", "yesterday", "0001-01-01T00:00:00+05:00"])
    def test_only_the_key_is_required_and_an_odd_time_is_a_warning(self, time: str | None) -> None:
        shop = {"catalogs": [{"catalog": "seven", "computedAt": time}]}
        found = asyncio.run(asked(shop, ShopCatalogs(hosts=["seven.example"]).fetch))
        assert found.catalogs == [CatalogState("seven", host="seven.example")]
        assert len(found.warnings) == (time is not None)
        for warning in found.warnings:
            assert all(part in warning for part in ("'seven'", "computedAt", repr(time)))
