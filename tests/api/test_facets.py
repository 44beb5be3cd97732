from __future__ import annotations

import warnings

import pytest
from pydantic import ValidationError

from octogen_dagster.api.facets import AgeGroup, ColorFamily, Facet, FacetName, Gender


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


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("gender", ["male", "Female", "UNISEX"]),
        ("age_groups", ["infant", " adult "]),
        ("color_family", [ColorFamily.RED, "gray", "Multicolor"]),
        ("color", ["a colour of its own"]),
        ("attribute_facets.gender", ["anything"]),
    ],
)
def test_values_are_compared_without_case_where_all_are_known(name: str, values: list[str]) -> None:
    assert Facet(name=name, values=values).values == [value.strip() for value in values]


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        (
            "gender",
            "femal",
            "gender has no value 'femal' (did you mean female or male?): "
            "use male, female or unisex",
        ),
        ("Gender", "women", "gender has no value 'women': use male, female or unisex"),
        (
            "age_groups",
            "Kid",
            "age_groups has no value 'Kid' (did you mean kids?): "
            "use infant, toddler, kids or adult",
        ),
        ("color_family", "Grey", "color_family has no value 'Grey' (did you mean Gray or Green?)"),
    ],
)
def test_a_value_that_does_not_exist_is_refused_with_the_closest_ones(
    name: str, value: str, message: str
) -> None:
    with pytest.raises(ValidationError) as caught:
        Facet(name=name, values=["male" if name == "gender" else value, value])
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("sex", "gender"),
        ("colour", "color"),
        ("Color", "color"),
        ("Gender", "gender"),
        ("age_group", "age_groups"),
        ("brand", "brand_name"),
        ("category_path", "category_path.depth_0"),
        ("category_path.depth_7", "category_path.depth_6"),
    ],
)
def test_a_name_that_resembles_a_known_one_is_a_warning(name: str, meant: str) -> None:
    text = f"The facet '{name}' is read as a product attribute. If you mean '{meant}', use"
    with pytest.warns(UserWarning, match=text) as caught:
        Facet(name=name, values=["male"])
    assert caught[0].filename == __file__


@pytest.mark.parametrize(
    "name",
    [
        *FacetName,
        *("fit", "size", "material", "pattern", "product_line", "brand_origin_country"),
        *("attribute_facets.fit", "attribute_facets.color"),
    ],
)
def test_any_other_name_is_an_attribute(name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Facet(
            name=name, values=["male" if name == "gender" else "kids" if "age" in name else "Red"]
        )
