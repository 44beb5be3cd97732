"""What the service says it searched for, compared between catalogs, pages and days."""

from __future__ import annotations

from typing import Any

import pytest

from octogen_dagster.frames.effective_query import (
    combine,
    differences,
    generated_facets,
    is_same,
)

RED = {"name": "color_family", "values": ["Red", "Pink"], "source": "generated"}
FEMALE = {"name": "gender", "values": ["female"], "source": "caller"}
QUERY: dict[str, Any] = {
    "text": "dress",
    "understood": True,
    "facets": [RED, FEMALE],
    "excludeFacets": [],
    "priceMin": None,
    "priceMax": 50.0,
    "similarToBrands": ["Acme", "Zen"],
    "relaxation": None,
}


class TestComparison:
    @pytest.mark.parametrize(
        "other",
        [
            {**QUERY, "facets": [FEMALE, {**RED, "values": ["Pink", "Red"]}]},
            {**QUERY, "similarToBrands": ["Zen", "Acme"], "priceMax": 50},
            {name: value for name, value in QUERY.items() if value not in (None, [])},
            {**QUERY, "catalogs": ["acme"], "newField": 1, "relaxation": {"rounds": 1}},
        ],
    )
    def test_order_absent_fields_and_new_fields_make_no_difference(
        self, other: dict[str, Any]
    ) -> None:
        assert is_same(QUERY, other)
        assert differences(QUERY, other) == []

    @pytest.mark.parametrize(
        ("changed", "line"),
        [
            ({"text": "gown"}, "text: dress before, gown now"),
            ({"understood": False}, "understood: true before, none now"),
            (
                {"facets": [RED]},
                "facets: color_family: Pink, Red; gender: female before, color_family: Pink, Red "
                "now",
            ),
            ({"facets": None}, "facets: color_family: Pink, Red; gender: female before, none now"),
            ({"excludeFacets": [RED]}, "excludeFacets: none before, color_family: Pink, Red now"),
            ({"priceMin": 0}, "priceMin: none before, 0 now"),
            ({"priceMax": 60}, "priceMax: 50 before, 60 now"),
            ({"brandQualityMin": 2}, "brandQualityMin: none before, 2 now"),
            ({"brandQualityMax": 2}, "brandQualityMax: none before, 2 now"),
            ({"similarToBrands": ["Acme"]}, "similarToBrands: Acme; Zen before, Acme now"),
        ],
    )
    def test_each_field_that_differs_is_a_line(self, changed: dict[str, Any], line: str) -> None:
        assert not is_same(QUERY, QUERY | changed)
        assert differences(QUERY, QUERY | changed) == [line]

    def test_a_query_that_is_not_known_differs_from_none(self) -> None:
        assert is_same(None, QUERY)
        assert is_same(QUERY, None)

    @pytest.mark.parametrize("facets", [7, "red", {"name": "red"}, ["red", None, {"values": 1}]])
    def test_any_shape_can_be_compared(self, facets: Any) -> None:
        assert is_same({"facets": facets}, {"facets": facets})
        assert not is_same({"facets": facets}, QUERY)
        assert generated_facets({"facets": facets}) == []


class TestCatalogs:
    def test_equal_queries_become_one(self) -> None:
        queries = {key: {**QUERY, "catalogs": [key]} for key in ("acme", "zen")}
        assert combine(queries) == QUERY

    def test_others_are_kept_by_catalog(self) -> None:
        queries = {"acme": {**QUERY, "catalogs": ["acme"]}, "zen": {**QUERY, "text": "gown"}}
        assert combine(queries) == {"by_catalog": {"acme": QUERY, "zen": {**QUERY, "text": "gown"}}}

    def test_no_queries_become_none(self) -> None:
        assert combine({}) is None

    def test_each_catalog_is_compared_with_itself(self) -> None:
        gown = {**QUERY, "text": "gown"}
        before = combine({"acme": QUERY, "gone": gown})
        after = combine({"acme": gown, "new": QUERY})
        assert before
        assert after
        line = "Catalog 'acme', text: dress before, gown now"
        assert differences(before, after) == [line]
        assert differences(QUERY, after) == [line]
        assert differences(before, gown) == [line]


def test_only_generated_facets_are_told() -> None:
    assert generated_facets(QUERY) == ["color_family: Pink, Red"]
    assert generated_facets({"text": "dress"}) == []


@pytest.mark.parametrize("value", [None, 5, {"acme": 5}])
def test_a_field_of_the_service_is_not_taken_for_the_queries_by_catalog(value: object) -> None:
    before, after = combine({"": {"text": "a", "by_catalog": value}}), combine({"": {"text": "b"}})
    assert before == {"text": "a"}
    assert after
    assert differences(before, after) == ["text: a before, b now"]
