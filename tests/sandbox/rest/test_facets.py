"""The names of facets."""

import pytest

from octogen_dagster.sandbox.rest.facets import bare_name, facet_of_attribute, is_known_facet


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("gender", True),
        ("brand_origin_country", True),
        ("category_path.depth_6", True),
        ("category_path.depth_7", False),
        ("fit", True),
        ("attribute_facets.fit", True),
        ("attribute_facets.no_such", False),
        ("no_such", False),
        ("", False),
    ],
)
def test_unknown_names_are_told_apart(name: str, expected: bool) -> None:
    assert is_known_facet(name) is expected


def test_an_attribute_may_be_qualified() -> None:
    assert bare_name("attribute_facets.fit") == bare_name("fit") == "fit"
    assert bare_name("attribute_facets.color") == "attribute_facets.color"


def test_the_attribute_named_color_needs_to_be() -> None:
    assert facet_of_attribute("color") == "attribute_facets.color"
    assert facet_of_attribute("fit") == "fit"
