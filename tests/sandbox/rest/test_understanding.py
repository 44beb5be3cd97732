"""The filters that are derived from the words of a search."""

from typing import Any

import pytest

from octogen_dagster.sandbox.rest.effective_query import EffectiveQuery
from octogen_dagster.sandbox.rest.request_bodies import CurrentSearchRequest, SeedSearchRequest
from octogen_dagster.sandbox.rest.understanding import Understanding, iter_relaxed


def understood(q: str, **fields: Any) -> EffectiveQuery:
    return Understanding().effective_query(CurrentSearchRequest(q=q, **fields))


def generated(query: EffectiveQuery) -> dict[str, list[str]]:
    return {facet.name: facet.values for facet in query.facets if facet.source == "generated"}


@pytest.mark.parametrize(
    ("q", "text", "facets"),
    [
        ("zebra", "zebra", {}),
        ("Women's zebra", "zebra", {"gender": ["female"]}),
        ("zebra for men and women", "zebra", {"gender": ["male", "female"]}),
        ("baby zebra", "zebra", {"age_groups": ["infant"]}),
        ("BLUE zebra", "zebra", {"color_family": ["blue"]}),
        ("midnight navy zebra", "zebra", {"color": ["navy"]}),
        ("fleetfoot zebra", "zebra", {"brand_name": ["fleet foot"]}),
        ("fjord & field", "", {"brand_name": ["fjord & field"]}),
        ("slim zebra", "zebra", {"fit": ["slim"]}),
        (
            "running shoes",
            "running shoes",
            {
                "product_type": ["running shoes"],
                "category_path.depth_0": ["apparel & accessories"],
            },
        ),
    ],
)
def test_words_become_facets(q: str, text: str, facets: dict[str, list[str]]) -> None:
    query = understood(q)
    assert query.understood
    assert (query.text, generated(query)) == (text, facets)


def test_price_bounds_are_understood_and_the_stricter_one_counts() -> None:
    query = understood("zebra over 20 under $99.50", price_min=30, price_max=200)
    assert (query.text, query.price_min, query.price_max) == ("zebra", 30, 99.5)


def test_a_facet_of_the_caller_replaces_an_understood_one() -> None:
    facets = [{"name": "gender", "values": ["unisex"]}, {"name": "color", "values": ["navy"]}]
    query = understood("women blue slim zebra", facets=facets)
    assert generated(query) == {"fit": ["slim"]}
    assert [facet.values for facet in query.facets[:2]] == [["unisex"], ["navy"]]


def test_understood_facets_can_be_omitted() -> None:
    query = understood("women slim zebra", omit_generated_facets=["attribute_facets.fit"])
    assert generated(query) == {"gender": ["female"]}


def test_a_fallback_category_counts_where_no_category_was_understood() -> None:
    path = ["Electronics", "Audio"]
    levels = {"category_path.depth_0": ["Electronics"], "category_path.depth_1": ["Audio"]}
    assert generated(understood("zebra", fallback_category=path)) == levels
    assert "category_path.depth_1" not in generated(understood("tent", fallback_category=path))
    sent = [{"name": "category_path.depth_1", "values": ["Shoes"]}]
    assert generated(understood("zebra", fallback_category=path, facets=sent)) == {}


@pytest.mark.parametrize(
    "request_", [CurrentSearchRequest(q="blue", understand=False), SeedSearchRequest(q="blue")]
)
def test_words_as_written_are_text(request_: Any) -> None:
    query = Understanding().effective_query(request_)
    assert (query.text, query.understood, query.facets) == ("blue", False, [])


def test_browsing_is_not_understood() -> None:
    query = understood("  ")
    assert (query.text, query.understood) == ("", False)


def test_the_understanding_of_a_phrase_can_change() -> None:
    understanding = Understanding()
    request = CurrentSearchRequest(q="blue zebra")
    understanding.replace_meaning("Zebra", {"gender": ["male"]})
    assert generated(understanding.effective_query(request)) == {
        "color_family": ["blue"],
        "gender": ["male"],
    }
    understanding.replace_meaning("blue zebra", {"product_type": ["tents"]})
    query = understanding.effective_query(request)
    assert (query.text, generated(query)) == ("blue zebra", {"product_type": ["tents"]})
    understanding.replace_meaning("blue zebra", {})
    understanding.replace_meaning("blue", {})
    query = understanding.effective_query(request)
    assert (query.text, generated(query)) == ("blue", {"gender": ["male"]})


def test_a_phrase_has_words() -> None:
    with pytest.raises(ValueError, match="needs at least one word, not '!'"):
        Understanding().replace_meaning("!", {})


def test_relaxing_drops_brands_then_attributes_then_colors_and_categories() -> None:
    facets = [{"name": "age_groups", "values": ["kids"]}]
    query = understood("acme slim blue shirt", facets=facets, relax=True)
    stages = list(iter_relaxed(query))
    left = [list(generated(stage)) for stage in stages]
    assert left == [
        ["fit", "color_family", "product_type", "category_path.depth_0"],
        ["color_family", "product_type", "category_path.depth_0"],
        [],
    ]
    assert all(stage.facets[0].source == "caller" for stage in stages)
    relaxations = [stage.relaxation for stage in stages if stage.relaxation is not None]
    assert [(r.rounds, r.declined_rounds) for r in relaxations] == [(1, 0), (2, 1), (3, 2)]
    assert [f.name for f in relaxations[1].dropped_facets] == ["brand_name", "fit"]


def test_a_stage_without_facets_is_no_stage() -> None:
    assert list(iter_relaxed(understood("zebra", relax=True))) == []
