"""Products and catalogs as JSON values."""

from datetime import datetime, timezone
from typing import Any

import pytest

from octogen_dagster.sandbox.data.catalog import make_catalog
from octogen_dagster.sandbox.rest.request_bodies import Generation
from octogen_dagster.sandbox.rest.views import (
    catalog_summary,
    full_view,
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
        assert (item["uuid"], item["title"]) == (product.uuid, product.title)
        assert item["currentPrice"] == product.current_price
        assert (item["brand"] or {}).get("name") == product.raw_brand_name
        assert len(item["images"]) == product.image_count
        assert item["imageUrl"] == (item["images"][0] if item["images"] else None)


def test_times_are_in_utc() -> None:
    product = next(product for product in PRODUCTS if product.updated_at is not None)
    text = list_item(product, "seed")["updatedAt"]
    parsed = datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=timezone.utc)
    assert parsed == product.updated_at


def test_the_current_generation_has_images_as_objects_and_a_primary_image() -> None:
    product = next(product for product in PRODUCTS if product.image_count)
    item = list_item(product, "current")
    assert [image["url"] for image in item["images"]] == list_item(product, "seed")["images"]
    assert item["primaryImage"] == item["images"][0]


@pytest.mark.parametrize(
    ("relevance", "scores"), [(0, (None, None)), (5, (80, 6.25)), (1000, (100, 1250.0))]
)
def test_scores_follow_the_relevance(relevance: int, scores: tuple[Any, Any]) -> None:
    item = list_item(PRODUCTS[0], "current", relevance)
    assert (item["displayMatchScore"], item["rawScore"]) == scores


@pytest.mark.parametrize("generation", ["seed", "current"])
def test_the_full_view_extends_the_list_item(generation: Generation) -> None:
    for product in PRODUCTS[:50]:
        item, view = list_item(product, generation), full_view(product, generation)
        shared = item.keys() - {"colors"}
        assert {name: view[name] for name in shared} == {name: item[name] for name in shared}
        assert [color["label"] for color in view["colors"]] == [c.label for c in product.colors]


def test_there_is_a_variant_for_each_color_and_size() -> None:
    for product in PRODUCTS[:50]:
        variants = full_view(product, "seed")["variants"]
        assert len(variants) == max(1, len(product.colors)) * max(1, len(product.kind.sizes))
        assert len({variant["sku"] for variant in variants}) == len(variants)


def test_only_rated_products_have_reviews() -> None:
    views = [(product.rating, full_view(product, "seed")["reviews"]) for product in PRODUCTS]
    assert all(not reviews for rating, reviews in views if rating is None)
    assert any(reviews for _, reviews in views)


def test_enrichment_has_the_canonical_brand_with_its_spellings() -> None:
    product = next(p for p in PRODUCTS if p.brand is not None and p.brand.spellings)
    brand = full_view(product, "seed")["enrichment"]["canonical_brand"]
    assert product.brand is not None
    assert brand["brand_name"] == product.brand.name
    assert brand["brand_synonyms"] == list(product.brand.spellings)
