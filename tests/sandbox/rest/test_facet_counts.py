"""The counts of products, checked against searches."""

from collections import Counter
from typing import Any

from octogen_dagster.sandbox.data.catalog import make_catalog
from octogen_dagster.sandbox.data.product import Product
from octogen_dagster.sandbox.rest.facet_counts import count_facets
from octogen_dagster.sandbox.rest.request_bodies import FacetCountsRequest
from octogen_dagster.sandbox.rest.understanding import Understanding

ARCADE = make_catalog("grand-arcade", 400, seed=1)
PRODUCTS = [ARCADE.product(index) for index in range(400)]
WOMEN = [{"name": "gender", "values": ["female"]}]


def count(**fields: Any) -> dict[str, Any]:
    request = FacetCountsRequest.model_validate(fields)
    return count_facets(request, Understanding().effective_query(request), [ARCADE])


def counted(values: list[dict[str, Any]]) -> dict[str, int]:
    return {value["value"]: value["count"] for value in values}


def family(product: Product) -> str | None:
    return None if product.color is None else product.color.family.lower()


def test_values_are_counted_among_the_products_that_match() -> None:
    (facet,) = count(facet_names=["color_family"], facets=WOMEN)["facets"]
    families = Counter(family(p) for p in PRODUCTS if p.gender == "female" and p.color)
    assert facet["name"] == "color_family"
    assert counted(facet["values"]) == families
    counts = [value["count"] for value in facet["values"]]
    assert counts == sorted(counts, reverse=True)


def test_a_facet_is_counted_without_the_own_filter_by_it() -> None:
    black = [{"name": "color_family", "values": ["black"]}]
    (facet,) = count(facet_names=["color_family"], facets=black)["facets"]
    assert counted(facet["values"]) == Counter(family(p) for p in PRODUCTS if p.color)
    slim = [{"name": "attribute_facets.fit", "values": ["slim"]}]
    (attribute,) = count(attributes=["fit"], facets=slim)["attributes"]
    fits = Counter(fit for p in PRODUCTS if (fit := p.attributes.get("fit")))
    assert (attribute["handle"], attribute["facetName"]) == ("fit", "fit")
    assert counted(attribute["values"]) == fits


def test_the_most_common_values_can_be_asked_for() -> None:
    (attribute,) = count(attributes=["material"], value_limit=2)["attributes"]
    materials = Counter(m for p in PRODUCTS if (m := p.attributes.get("material")))
    assert counted(attribute["values"]) == dict(materials.most_common(2))


def test_categories_are_counted_by_their_own_facets() -> None:
    shoes = [{"name": "category_path.depth_1", "values": ["shoes"]}]
    adults = [{"name": "age_groups", "values": ["adult"]}]
    categories = [{"key": "shoes", "facets": shoes}, {"key": "adults", "facets": adults}]
    found = count(categories=categories, facets=WOMEN)["categories"]
    women = [product for product in PRODUCTS if product.gender == "female"]
    assert found == [
        {"key": "shoes", "count": sum("Shoes" in p.kind.category_path for p in women)},
        {"key": "adults", "count": sum("adult" in p.age_groups for p in women)},
    ]


def test_understood_filters_apply_and_the_text_does_not() -> None:
    found = count(q="women zebra", facet_names=["category_path.depth_0"])
    values = counted(found["facets"][0]["values"]).values()
    assert sum(values) == sum(p.gender == "female" for p in PRODUCTS)
    assert found["effectiveQuery"]["text"] == "zebra"
    assert found["effectiveQuery"]["facets"] == [
        {"name": "gender", "values": ["female"], "source": "generated"}
    ]
