"""The built-in merchants are consistent."""

from octogen_dagster.sandbox.data.shops import SHOPS
from octogen_dagster.sandbox.data.verticals import VERTICALS


def test_keys_and_domains_are_unique() -> None:
    assert len({shop.key for shop in SHOPS}) == len({shop.domain for shop in SHOPS}) == len(SHOPS)


def test_domains_cannot_exist() -> None:
    assert all(shop.domain.endswith(".example") for shop in SHOPS)


def test_each_shop_has_known_lines_of_business() -> None:
    assert all(set(shop.verticals) <= VERTICALS.keys() and shop.verticals for shop in SHOPS)
    assert {name for shop in SHOPS for name in shop.verticals} == VERTICALS.keys()


def test_there_are_several_currencies_and_one_shop_without_a_source_url() -> None:
    assert {shop.currency for shop in SHOPS} == {"USD", "EUR", "GBP", "SEK", "JPY"}
    assert [shop.key for shop in SHOPS if not shop.has_source_url] == ["lowtide"]
