from __future__ import annotations

from octogen_dagster.api.facets import AgeGroup, ColorFamily, FacetName, Gender


def test_the_facet_names_are_those_of_the_contract() -> None:
    assert [str(name) for name in FacetName] == [
        *("brand_name", "brand_slug", "raw_brand_name", "product_type", "gender"),
        *("age_groups", "color", "color_family", "is_activewear"),
        *(f"category_path.depth_{depth}" for depth in range(7)),
    ]


def test_the_values_are_those_of_the_contract() -> None:
    assert [str(value) for value in Gender] == ["male", "female", "unisex"]
    assert [str(value) for value in AgeGroup] == ["infant", "toddler", "kids", "adult"]
    assert " ".join(ColorFamily) == (
        "Pink Red Orange Brown Yellow Green Blue Purple White Gray Black"
    )
