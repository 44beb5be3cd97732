"""The granted catalogs: chosen, added, removed and indexed."""

import pytest

from octogen_dagster.sandbox.rest.grants import CatalogChoice, CatalogGrants


def counts(grants: CatalogGrants) -> dict[str, int]:
    return {catalog.key: catalog.product_count for catalog in grants.select()}


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        (2, {"harbor-and-pine": 5, "northpeak": 5}),
        (["strada", "own"], {"strada": 5, "own": 5}),
        ({"strada": 7}, {"strada": 7}),
        (0, {}),
    ],
)
def test_catalogs_are_chosen_by_number_keys_or_sizes(
    choice: CatalogChoice, expected: dict[str, int]
) -> None:
    assert counts(CatalogGrants(choice, 5, seed=1)) == expected


def test_selected_catalogs_are_in_the_order_of_the_keys() -> None:
    grants = CatalogGrants(["a", "b", "c"], 5, seed=1)
    assert [catalog.key for catalog in grants.select(["c", "a"])] == ["c", "a"]


def test_a_catalog_is_added_replaced_and_removed() -> None:
    grants = CatalogGrants(["a"], 5, seed=1)
    grants.grant("b", None)
    grants.grant("a", 6)
    assert counts(grants) == {"a": 6, "b": 5}
    grants.revoke("a")
    assert counts(grants) == {"b": 5}


def test_an_index_run_changes_one_catalog() -> None:
    grants = CatalogGrants(["a", "b"], 5, seed=1)
    before, other = grants.select()
    grants.touch("a")
    after, unchanged = grants.select()
    assert before.last_indexed_at is not None
    assert after.last_indexed_at is not None
    assert after.last_indexed_at > before.last_indexed_at
    assert unchanged == other


def test_a_catalog_that_is_not_granted_cannot_be_used() -> None:
    grants = CatalogGrants(["a"], 5, seed=1)
    for use in (grants.touch, grants.revoke, lambda key: grants.select(["a", key])):
        with pytest.raises(LookupError, match="catalog 'b' is not granted; granted: a"):
            use("b")


def test_the_seed_decides_the_products() -> None:
    one, other = (CatalogGrants(["a"], 5, seed).select()[0] for seed in (1, 2))
    assert one.product(0).uuid != other.product(0).uuid


def test_unknown_keys_match_nothing_where_that_is_no_error() -> None:
    grants = CatalogGrants(["a", "b"], 5, seed=1)
    assert [catalog.key for catalog in grants.known(["c", "b", "b"])] == ["b"]
    assert [catalog.key for catalog in grants.known()] == ["a", "b"]


def test_a_product_is_removed_by_its_url() -> None:
    grants = CatalogGrants(["a", "b"], 5, seed=1)
    url = grants.select(["b"])[0].product(2).url
    grants.remove_product(url)
    assert [catalog.product_count for catalog in grants.select()] == [5, 4]
    with pytest.raises(LookupError, match="no catalog has a product with the URL 'https:"):
        grants.remove_product(url)


def test_the_price_of_a_product_is_set_by_its_url() -> None:
    grants = CatalogGrants(["a", "b"], 5, seed=1)
    product = grants.select(["b"])[0].product(2)
    grants.set_price(product.url, 8_995.0)
    assert grants.select(["b"])[0].product(2).current_price == 8_995.0
    with pytest.raises(LookupError, match="no catalog has a product with the URL 'https:"):
        grants.set_price(f"{product.url}0", 1.0)


def test_a_day_passes_for_each_catalog() -> None:
    grants = CatalogGrants(["a", "b"], 100, seed=1)
    grants.next_day()
    assert [catalog.day for catalog in grants.select()] == [1, 1]


def test_shops_stay_when_their_catalog_is_removed() -> None:
    grants = CatalogGrants(["a"], 5, seed=1)
    grants.grant("b", None)
    grants.revoke("a")
    assert [shop.key for shop in grants.shops()] == ["a", "b"]
