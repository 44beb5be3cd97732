"""Products are believable and a pure function of seed, catalog and index."""

import subprocess
import sys
import uuid
from collections import Counter

import pytest

from octogen_dagster.sandbox.data.catalog import (
    Product,
    builtin_catalog_keys,
    make_catalog,
    slug_of,
    words_of,
)

_PRINT_PRODUCTS = """
import sys
from octogen_dagster.sandbox.data.catalog import make_catalog
from octogen_dagster.sandbox.rest.views import full_view
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


def test_uuids_are_real_and_unique_across_catalogs() -> None:
    texts = [product.uuid for key in builtin_catalog_keys(12) for product in _products(key, 1000)]
    assert len(set(texts)) == 12_000
    assert all(str(uuid.UUID(text)) == text and uuid.UUID(text).version == 4 for text in texts)


def test_nullable_traits_are_null_sometimes_and_known_mostly() -> None:
    products = _products()
    for trait in ("title", "brand", "current_price", "rating", "updated_at", "in_stock"):
        unknown = sum(getattr(product, trait) is None for product in products)
        assert 0 < unknown < len(products) / 3, trait


def test_a_reduced_product_cost_more_before_and_some_are_reduced() -> None:
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


def test_titles_hold_quotes_and_letters_outside_ascii() -> None:
    titles = " ".join(product.title or "" for product in _products())
    assert '"' in titles
    assert "東京" in titles
    assert "ø" in titles


def test_every_kind_and_color_of_an_assortment_is_sold() -> None:
    products = _products()
    catalog = products[0].catalog
    assert Counter(p.kind.noun for p in products).keys() == {k.noun for _, k in catalog.assortment}
    assert len({p.color for p in products}) == 15


def test_prices_are_in_the_currency_of_the_shop() -> None:
    yen = [p.current_price for p in _products("kumo", 200) if p.current_price is not None]
    assert all(price % 100 == 0 and price >= 100 for price in yen)
    assert _products("kumo", 1)[0].catalog.currency == "JPY"


def test_a_product_is_found_by_its_url_and_nothing_else_is() -> None:
    catalog = make_catalog("strada", 10, seed=1)
    product = catalog.product(7)
    found = catalog.find(product.url)
    assert found is not None
    assert found.uuid == product.uuid
    for url in (f"{product.url}0", product.url.replace("-7", "-8"), "", "https://x.example/-07"):
        assert catalog.find(url) is None


def test_any_key_is_a_catalog_of_its_own() -> None:
    one, other = make_catalog("../x", 3, seed=1), make_catalog("a|b, c", 3, seed=1)
    assert one.domain != other.domain
    assert one.product(0).uuid != other.product(0).uuid


def test_a_catalog_without_products_was_never_indexed_until_it_is() -> None:
    empty = make_catalog("strada", 0, seed=1)
    assert empty.last_indexed_at is None
    indexed = empty.indexed_again()
    assert indexed.last_indexed_at is not None
    again = indexed.indexed_again().last_indexed_at
    assert again is not None
    assert again > indexed.last_indexed_at


@pytest.mark.parametrize(("key", "count"), [("", 1), ("strada", -1)])
def test_an_impossible_catalog_is_refused(key: str, count: int) -> None:
    with pytest.raises(ValueError, match="catalog"):
        make_catalog(key, count, seed=1)


@pytest.mark.parametrize("count", [-1, 13])
def test_there_are_twelve_built_in_catalogs(count: int) -> None:
    assert len(set(builtin_catalog_keys(12))) == 12
    with pytest.raises(ValueError, match="0 to 12"):
        builtin_catalog_keys(count)


def test_words_ignore_case_and_accents() -> None:
    assert words_of("L'Été, CRÈME & 東京") == {"l", "ete", "creme", "東京"}


def test_a_slug_is_ascii_even_when_nothing_of_the_text_is() -> None:
    assert slug_of("Crème & Co.") == "creme-co"
    assert slug_of("東京") == "item"
