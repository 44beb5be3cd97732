"""Products are believable, and a pure function of seed, catalog and index."""

import subprocess
import sys
import uuid
from collections import Counter

from octogen_dagster.sandbox.data.catalog import builtin_catalog_keys, make_catalog
from octogen_dagster.sandbox.data.product import Product
from octogen_dagster.sandbox.data.shops import PRICES_OF_A_DOLLAR

_PRINT_PRODUCTS = """
import sys
from octogen_dagster.sandbox.data.catalog import make_catalog
from octogen_dagster.sandbox.rest.full_views import full_view
catalog = make_catalog("grand-arcade", 1_000_000, seed=7)
sys.stdout.reconfigure(encoding="utf-8")
print([full_view(catalog.product(index), "current") for index in (0, 1, 17, 999_999)])
"""


def _products(key: str = "grand-arcade", count: int = 3000) -> list[Product]:
    catalog = make_catalog(key, count, seed=1)
    return [catalog.product(index) for index in range(count)]


def test_two_processes_make_the_same_products() -> None:
    first, second = (
        subprocess.run(
            [sys.executable, "-c", _PRINT_PRODUCTS],
            env={"PYTHONHASHSEED": hash_seed},
            capture_output=True,
            check=True,
        ).stdout
        for hash_seed in ("1", "2")
    )
    assert first == second
    assert b"uuid" in first


def test_another_seed_makes_other_products() -> None:
    one, other = make_catalog("kumo", 50, seed=1), make_catalog("kumo", 50, seed=2)
    assert {one.product(i).uuid for i in range(50)}.isdisjoint(
        other.product(i).uuid for i in range(50)
    )


def test_uuids_are_valid_and_unique_across_catalogs() -> None:
    texts = [product.uuid for key in builtin_catalog_keys(12) for product in _products(key, 1000)]
    assert len(set(texts)) == 12_000
    assert all(str(uuid.UUID(text)) == text and uuid.UUID(text).version == 4 for text in texts)


def test_nullable_traits_are_sometimes_null() -> None:
    products = _products()
    for trait in ("title", "brand", "current_price", "rating", "updated_at", "in_stock"):
        unknown = sum(getattr(product, trait) is None for product in products)
        assert 0 < unknown < len(products) / 3, trait


def test_some_products_are_reduced_and_cost_more_before() -> None:
    prices = [(product.original_price, product.current_price) for product in _products()]
    reduced = [(before, now) for before, now in prices if before is not None]
    assert 500 < len(reduced) < 1500
    assert all(now is not None and before > now for before, now in reduced)


def test_some_items_show_another_spelling_of_their_canonical_brand() -> None:
    spellings = {
        product.raw_brand_name
        for product in _products("harbor-and-pine")
        if product.brand is not None and product.brand.name == "Acme"
    }
    assert spellings == {"Acme", "ACME Inc.", "Acme®"}


def test_titles_contain_quotes_and_letters_outside_ascii() -> None:
    titles = " ".join(product.title or "" for product in _products())
    assert '"' in titles
    assert "東京" in titles
    assert "ø" in titles


def test_every_kind_and_color_of_an_assortment_is_sold() -> None:
    products = _products()
    catalog = products[0].catalog
    assert Counter(p.kind.noun for p in products).keys() == {k.noun for _, k in catalog.assortment}
    assert len({p.color for p in products}) == 15


def test_a_shop_has_prices_in_several_currencies_and_some_unknown_ones() -> None:
    products = _products("kumo", 2000)
    shares = Counter(product.currency for product in products)
    assert shares.keys() == {*PRICES_OF_A_DOLLAR, None}
    assert shares["JPY"] > 1700
    assert 30 < shares[None] < 120


def test_prices_fit_their_currency() -> None:
    priced = [p for p in _products("kumo", 2000) if p.currency and p.current_price is not None]
    for currency, smallest in (("JPY", 100), ("USD", 1)):
        prices = [p.current_price for p in priced if p.currency == currency]
        assert all(price is not None and smallest <= price for price in prices)
        assert all(price is not None and price % 100 == 0 for price in prices) is (
            currency == "JPY"
        )


def test_some_products_are_variants_on_the_page_of_another() -> None:
    products = _products()
    variants = [product for product in products if product.is_variant]
    assert 60 < len(variants) < 300
    for variant in variants:
        page, _, index = variant.url.partition("?variant=")
        assert (page, index) == (products[variant.index - 1].url, str(variant.index))
