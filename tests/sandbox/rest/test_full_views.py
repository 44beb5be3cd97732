"""Products with all fields of a lookup."""

import pytest

from octogen_dagster.sandbox.data.catalog import make_catalog
from octogen_dagster.sandbox.rest.full_views import complete_view
from octogen_dagster.sandbox.rest.request_bodies import Generation
from octogen_dagster.sandbox.rest.views import complete_item

ARCADE = make_catalog("grand-arcade", 300, seed=1)
_ONLY_IN_LISTS = {"catalogDisplayName", "categoryPath", "gender", "colors", "sizes"}
PRODUCTS = [ARCADE.product(index) for index in range(300)]


@pytest.mark.parametrize("generation", ["seed", "current"])
def test_the_full_view_extends_the_list_item(generation: Generation) -> None:
    for product in PRODUCTS[:50]:
        item, view = complete_item(product, generation), complete_view(product, generation)
        shared = item.keys() - _ONLY_IN_LISTS
        assert {name: view[name] for name in shared} == {name: item[name] for name in shared}
        assert [color["label"] for color in view["colors"]] == [c.label for c in product.colors]


def test_there_is_a_variant_for_each_color_and_size() -> None:
    for product in PRODUCTS[:50]:
        variants = complete_view(product, "seed")["variants"]
        assert len(variants) == max(1, len(product.colors)) * max(1, len(product.kind.sizes))
        assert len({variant["sku"] for variant in variants}) == len(variants)


def test_only_rated_products_have_reviews() -> None:
    views = [(product.rating, complete_view(product, "seed")["reviews"]) for product in PRODUCTS]
    assert all(not reviews for rating, reviews in views if rating is None)
    assert any(reviews for _, reviews in views)


def test_enrichment_has_the_canonical_brand_with_its_spellings() -> None:
    product = next(p for p in PRODUCTS if p.brand is not None and p.brand.spellings)
    brand = complete_view(product, "seed")["enrichment"]["canonical_brand"]
    assert product.brand is not None
    assert brand["brand_name"] == product.brand.name
    assert brand["brand_synonyms"] == list(product.brand.spellings)
