"""Products and catalogs as JSON values."""

from datetime import datetime, timezone
from typing import Any

import pytest

from octogen_dagster.sandbox.data.catalog import make_catalog
from octogen_dagster.sandbox.rest.views import (
    catalog_summary,
    complete_item,
    list_item,
)

ARCADE = make_catalog("grand-arcade", 300, seed=1)
PRODUCTS = [ARCADE.product(index) for index in range(300)]


def test_a_catalog_summary_has_the_facts_of_the_catalog() -> None:
    assert catalog_summary(ARCADE) == {
        "catalog": "grand-arcade",
        "displayName": "The Grand Arcade",
        "sourceBaseUrl": "https://www.grandarcade.example",
        "productCount": 300,
        "lastIndexedAt": "2026-01-15T06:00:00Z",
    }


def test_what_is_unknown_is_null() -> None:
    empty = catalog_summary(make_catalog("lowtide", 0, seed=1))
    assert (empty["sourceBaseUrl"], empty["lastIndexedAt"]) == (None, None)


def test_a_list_item_shows_the_traits_of_the_product() -> None:
    for product in PRODUCTS:
        item = list_item(product, "seed")
        assert (item["uuid"], item.get("title")) == (product.uuid, product.title)
        assert item.get("currentPrice") == product.current_price
        assert (item.get("brand") or {}).get("name") == product.raw_brand_name
        assert len(complete_item(product, "seed")["images"]) == product.image_count


def test_images_are_the_shops_and_the_deprecated_address_is_octogens() -> None:
    items = [complete_item(product, "current") for product in PRODUCTS if product.image_count]
    for item in items:
        assert item["imageUrl"].startswith("https://cdn.octogen.example/")
        assert item["primaryImage"] == item["images"][0]
        for image in item["images"]:
            assert image["url"].startswith("https://cdn.grandarcade.example/")
            assert (image["cdnUrl"] is None) is (image["width"] is None)
    without = sum(image["cdnUrl"] is None for item in items for image in item["images"])
    assert 0 < without < sum(len(item["images"]) for item in items) / 5


def test_some_prices_are_whole_numbers() -> None:
    prices = [complete_item(product, "current")["currentPrice"] for product in PRODUCTS]
    assert {type(price) for price in prices} == {int, float, type(None)}


def test_times_are_in_utc() -> None:
    product = next(product for product in PRODUCTS if product.updated_at is not None)
    text = list_item(product, "seed")["updatedAt"]
    parsed = datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=timezone.utc)
    assert parsed == product.updated_at


def test_the_current_generation_has_images_as_objects_and_a_primary_image() -> None:
    product = next(product for product in PRODUCTS if product.image_count)
    item = complete_item(product, "current")
    assert [image["url"] for image in item["images"]] == complete_item(product, "seed")["images"]
    assert item["primaryImage"] == item["images"][0]


@pytest.mark.parametrize(
    ("relevance", "scores"), [(0, (None, None)), (5, (80, 6.25)), (1000, (100, 1250.0))]
)
def test_scores_follow_the_relevance(relevance: int, scores: tuple[Any, Any]) -> None:
    item = complete_item(PRODUCTS[0], "current", relevance)
    assert (item["displayMatchScore"], item["rawScore"]) == scores
