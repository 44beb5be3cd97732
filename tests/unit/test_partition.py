"""The parts that brands split a catalog into: each product is in exactly one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from octogen_dagster.api.search import SearchRequest
from octogen_dagster.reading.partition import (
    MAX_BRANDS,
    MAX_SHARE,
    CatalogPart,
    partition,
)

NAMES = st.sampled_from(
    ["Acme", "ACME", " acme ", "ß", "SS", "İstanbul", "istanbul", "null", "靴下", "a, b", "", " "]
)
brands = NAMES | st.text(max_size=12)
EVEN = {f"brand {number}": 100 for number in range(40)}


def is_in(brand: str | None, part: CatalogPart, synonyms: Mapping[str, str]) -> bool:
    """What a service decides whose canonical values nobody knows."""

    def canonical(name: str) -> str:
        return synonyms.get(name.lower(), name.lower())

    def matches(names: list[str]) -> bool:
        return brand is not None and canonical(brand) in map(canonical, names)

    request = part.narrowed(SearchRequest(catalog="acme"))
    return all(matches(facet.values) for facet in request.facets) and not any(
        matches(facet.values) for facet in request.exclude_facets
    )


@given(
    products=st.lists(st.none() | brands, min_size=1, max_size=60),
    known=st.dictionaries(brands, st.integers(-1, 50), max_size=20),
    synonyms=st.dictionaries(brands.map(str.lower), brands.map(str.lower), max_size=5),
    walks=st.integers(0, 40),
)
def test_each_product_is_in_exactly_one_part(
    products: list[str | None], known: dict[str, int], synonyms: dict[str, str], walks: int
) -> None:
    sizes = Counter(known) + Counter(brand for brand in products if brand is not None)
    parts = partition(sizes, len(products), walks, walks)
    assert len(parts) <= max(walks, 0)
    for brand in products if parts else ():
        assert sum(is_in(brand, part, synonyms) for part in parts) == 1


def test_spellings_that_differ_in_case_are_one_brand() -> None:
    parts = partition({"Acme": 5, "ACME": 60, " acme": 5, "Zen": 50, "": 9}, 129, 4, 4)
    assert [(part.brands, part.products) for part in parts] == [
        (("ACME",), 70),
        (("Zen",), 50),
        ((), 9),
    ]


def test_no_more_brands_are_named_than_a_request_may_have() -> None:
    many = {f"brand {number}": 10 + (number == 700) for number in range(MAX_BRANDS + 300)}
    parts = partition(many, sum(many.values()), 30, 8)
    named = [brand for part in parts for brand in part.brands]
    assert len(named) == len(set(named)) == MAX_BRANDS
    assert "brand 700" in named
    assert max(len(part.excluded) for part in parts) == MAX_BRANDS


@pytest.mark.parametrize(
    ("sizes", "products", "walks"),
    [
        ({}, 100, 8),
        ({"Acme": 0}, 100, 8),
        (EVEN, 4_000, 1),
        ({"Acme": 76, "Zen": 24}, 100, 8),
        ({"Acme": 24}, 100, 8),
    ],
)
def test_a_split_that_does_not_pay_is_not_made(
    sizes: dict[str, int], products: int, walks: int
) -> None:
    assert MAX_SHARE == 0.75
    assert partition(sizes, products, walks, 8) == []
