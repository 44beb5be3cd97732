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


def test_a_day_moves_prices_and_stock_and_brings_and_takes_products() -> None:
    first = make_catalog("strada", 400, seed=1)
    second = first.next_day()
    assert first.last_indexed_at is not None
    assert second.last_indexed_at is not None
    assert second.last_indexed_at > first.last_indexed_at
    before, after = (
        {p.uuid: p for p in map(day.product, range(day.size)) if day.contains(p.index)}
        for day in (first, second)
    )
    assert len(after.keys() - before.keys()) == 8
    assert 1 <= len(before.keys() - after.keys()) <= 8
    both = before.keys() & after.keys()
    moved = [uuid for uuid in both if before[uuid].current_price != after[uuid].current_price]
    assert 8 <= len(moved) <= 40
    assert all(after[uuid].title == before[uuid].title for uuid in both)
    restocked = [uuid for uuid in both if before[uuid].in_stock != after[uuid].in_stock]
    assert 3 <= len(restocked) <= 20


def test_days_are_the_same_for_the_same_seed_and_go_on() -> None:
    def prices(days: int) -> list[float | None]:
        catalog = make_catalog("strada", 200, seed=1)
        for _ in range(days):
            catalog = catalog.next_day()
        return [catalog.product(index).current_price for index in range(200)]

    assert prices(2) == prices(2)
    assert len({tuple(prices(days)) for days in range(4)}) == 4


def test_an_empty_catalog_stays_empty_for_days() -> None:
    assert make_catalog("strada", 0, seed=1).next_day().product_count == 0


def test_a_price_that_was_set_stays() -> None:
    catalog = make_catalog("strada", 10, seed=1).with_price(7, 0.5).next_day()
    assert catalog.product(7).current_price == 0.5
    assert catalog.product(6).current_price != 0.5


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
