"""The lines of business are consistent."""

import pytest

from octogen_dagster.sandbox.data.verticals import VERTICALS, Vertical

KINDS = [kind for vertical in VERTICALS.values() for kind in vertical.kinds]


@pytest.mark.parametrize("vertical", VERTICALS.values(), ids=VERTICALS)
def test_a_line_of_business_has_kinds_brands_and_adjectives(vertical: Vertical) -> None:
    assert vertical.kinds
    assert vertical.brands
    assert vertical.adjectives
    assert len({brand.name for brand in vertical.brands}) == len(vertical.brands)


def test_each_noun_stands_for_one_kind() -> None:
    assert len({kind.noun for kind in KINDS}) == len(KINDS)


def test_each_kind_can_be_sold() -> None:
    for kind in KINDS:
        assert kind.typical_price > 0, kind.noun
        assert 2 <= len(kind.category_path) <= 7, kind.noun
        assert all(kind.attributes.values()), kind.noun
        assert len(set(kind.sizes)) == len(kind.sizes), kind.noun


def test_spellings_of_a_brand_differ_from_its_name() -> None:
    brands = [brand for vertical in VERTICALS.values() for brand in vertical.brands]
    assert all(brand.name not in brand.spellings for brand in brands)
    assert any(brand.spellings for brand in brands)
