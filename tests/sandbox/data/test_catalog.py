"""Catalogs: built in or invented, with products that are found by URL."""

import pytest

from octogen_dagster.sandbox.data.catalog import builtin_catalog_keys, make_catalog


def test_a_product_is_found_by_its_exact_url() -> None:
    catalog = make_catalog("strada", 10, seed=1)
    product = catalog.product(7)
    found = catalog.find(product.url)
    assert found is not None
    assert found.uuid == product.uuid
    for url in (f"{product.url}0", product.url.replace("-7", "-8"), "", "https://x.example/-07"):
        assert catalog.find(url) is None


def test_a_removed_product_is_left_at_the_shop() -> None:
    catalog = make_catalog("strada", 10, seed=1)
    url = catalog.product(7).url
    smaller = catalog.without(7)
    assert (smaller.product_count, smaller.contains(7), smaller.contains(8)) == (9, False, True)
    assert smaller.find(url) is None
    left = smaller.find_in_shop(url)
    assert left is not None
    assert left.index == 7


def test_a_variant_is_found_by_its_own_url() -> None:
    catalog = make_catalog("strada", 200, seed=1)
    variants = [p for p in map(catalog.product, range(200)) if p.is_variant]
    assert variants
    for variant in variants:
        found = catalog.find(variant.url)
        assert found is not None
        assert found.uuid == variant.uuid


def test_a_shop_can_have_a_second_catalog() -> None:
    first, second = (make_catalog(key, 5, seed=1) for key in ("fjord.field", "fjord.field.sale"))
    assert first.domain == second.domain == "fjordfield.example"
    assert second.display_name == "Fjord & Field sale"
    assert second.product(0).url.startswith("https://www.fjordfield.example/sale/products/")
    assert second.product(0).uuid != first.product(0).uuid


def test_any_key_is_a_catalog_of_its_own() -> None:
    one, other = make_catalog("../x", 3, seed=1), make_catalog("a|b, c", 3, seed=1)
    assert one.domain != other.domain
    assert one.product(0).uuid != other.product(0).uuid


def test_an_empty_catalog_was_never_indexed_until_an_index_run() -> None:
    empty = make_catalog("strada", 0, seed=1)
    assert empty.last_indexed_at is None
    indexed = empty.indexed_again()
    assert indexed.last_indexed_at is not None
    again = indexed.indexed_again().last_indexed_at
    assert again is not None
    assert again > indexed.last_indexed_at


@pytest.mark.parametrize(("key", "count"), [("", 1), ("strada", -1)])
def test_an_invalid_catalog_is_refused(key: str, count: int) -> None:
    with pytest.raises(ValueError, match="catalog"):
        make_catalog(key, count, seed=1)


@pytest.mark.parametrize("count", [-1, 13])
def test_there_are_twelve_built_in_catalogs(count: int) -> None:
    assert len(set(builtin_catalog_keys(12))) == 12
    with pytest.raises(ValueError, match="0 to 12"):
        builtin_catalog_keys(count)
