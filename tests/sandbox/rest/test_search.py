"""The products and pages of a search, checked against the full views of the products."""

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from octogen_dagster.sandbox.data.brands import quality_score
from octogen_dagster.sandbox.data.catalog import Catalog, make_catalog
from octogen_dagster.sandbox.data.product import Product
from octogen_dagster.sandbox.data.text import words_of
from octogen_dagster.sandbox.rest.effective_query import EffectiveQuery
from octogen_dagster.sandbox.rest.full_views import complete_view
from octogen_dagster.sandbox.rest.request_bodies import CurrentSearchRequest, SeedSearchRequest
from octogen_dagster.sandbox.rest.search import Hit, find_page, iter_matches
from octogen_dagster.sandbox.rest.understanding import Understanding

_ARCADE = make_catalog("grand-arcade", 600, seed=1)
_VIEWS = [complete_view(_ARCADE.product(index), "current") for index in range(600)]


def _query(**fields: Any) -> EffectiveQuery:
    return Understanding().effective_query(CurrentSearchRequest(**fields))


def _seed_query(**fields: Any) -> EffectiveQuery:
    return Understanding().effective_query(SeedSearchRequest(**fields))


def _pages(catalogs: list[Catalog], limit: int = 50, **fields: Any) -> Iterator[list[Hit]]:
    query, start = _seed_query(**fields), None
    while True:
        hits, start = find_page(query, catalogs, start, limit)
        yield hits
        if start is None:
            return


def _found(**fields: Any) -> list[str]:
    return [hit.product.uuid for page in _pages([_ARCADE], **fields) for hit in page]


def _expected(matches: Callable[[dict[str, Any]], bool]) -> list[str]:
    found = [view["uuid"] for view in _VIEWS if matches(view)]
    assert 0 < len(found) < len(_VIEWS), "the example must tell matches from others"
    return found


@settings(deadline=None)
@given(
    st.lists(st.integers(0, 40), min_size=1, max_size=4),
    st.integers(1, 100),
)
def test_browsing_shows_every_product_once(counts: list[int], limit: int) -> None:
    catalogs = [make_catalog(f"shop {n}", count, seed=1) for n, count in enumerate(counts)]
    pages = list(_pages(catalogs, limit=limit))
    shown = [(hit.product.catalog.key, hit.product.index) for page in pages for hit in page]
    assert Counter(shown) == Counter(
        (catalog.key, index) for catalog in catalogs for index in range(catalog.product_count)
    )
    assert all(len(page) == limit for page in pages[:-1])
    assert pages[-1] or sum(counts) == 0


def test_several_catalogs_take_turns() -> None:
    catalogs = [make_catalog(key, count, seed=1) for key, count in (("b", 3), ("a", 2))]
    (page,) = _pages(catalogs)
    assert [(hit.product.catalog.key, hit.product.index) for hit in page] == [
        ("a", 0),
        ("b", 0),
        ("a", 1),
        ("b", 1),
        ("b", 2),
    ]


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 100), st.sampled_from(["watch", "acme", "shoes leather", "ROSÉ", "and"]))
def test_keywords_show_page_one_again_in_quality_order(limit: int, q: str) -> None:
    matches = [
        product.uuid
        for product in map(_ARCADE.product, range(_ARCADE.product_count))
        if words_of(q) <= _all_words(product)
    ]
    first, *later = [
        [hit.product.uuid for hit in page] for page in _pages([_ARCADE], q=q, limit=limit)
    ]
    if len(matches) <= limit:
        assert later == []
        assert set(first) == set(matches)
    else:
        assert [uuid for page in later for uuid in page] == matches
        assert set(first) < set(matches)
        assert len(set(first)) == limit


def _all_words(product: Product) -> frozenset[str]:
    color = product.color
    brand = product.brand
    texts = [
        product.title or "",
        *product.kind.category_path,
        *((color.label, color.name, color.family) if color else ()),
        *((brand.name, product.raw_brand_name or "") if brand else ()),
    ]
    return words_of(" ".join(texts))


def test_page_one_is_ranked_by_relevance() -> None:
    first = next(_pages([_ARCADE], q="watch", limit=100))
    relevances = [hit.relevance for hit in first]
    assert relevances == sorted(relevances, reverse=True)
    assert relevances[0] > relevances[-1]
    assert "Watch" in (first[0].product.title or "")


def test_page_two_is_like_page_one_if_all_products_are_equally_relevant() -> None:
    first, second, *_ = _pages([make_catalog("strada", 200, seed=1)], q="boots", limit=10)
    assert len({hit.relevance for hit in first}) == 1
    assert [hit.product.uuid for hit in first] == [hit.product.uuid for hit in second]


@pytest.mark.parametrize("q", ["zebra", "watch zebra", "!?"])
def test_all_keywords_must_match(q: str) -> None:
    assert _found(q=q) == []


def test_a_blank_query_browses() -> None:
    assert _found(q="  ") == [view["uuid"] for view in _VIEWS]


def _enriched(name: str, value: Any) -> Callable[[dict[str, Any]], bool]:
    return lambda view: value in view["enrichment"][name]


def _attribute(name: str, value: str) -> Callable[[dict[str, Any]], bool]:
    return lambda view: value in view["enrichment"]["attributes"].get(name, ())


def _brand(field: str, value: str) -> Callable[[dict[str, Any]], bool]:
    return lambda view: (view["enrichment"]["canonical_brand"] or {}).get(field) == value


def _category(depth: int, value: str) -> Callable[[dict[str, Any]], bool]:
    return lambda view: value in view["enrichment"]["category_path"][depth : depth + 1]


@pytest.mark.parametrize(
    ("name", "value", "matches"),
    [
        ("brand_name", "acme", _brand("brand_name", "Acme")),
        ("brand_slug", "fjord-field", _brand("brand_slug", "fjord-field")),
        ("raw_brand_name", "Voltaic Corp", lambda v: v["brand"]["name"] == "VOLTAIC CORP"),
        ("product_type", "running shoes", lambda v: v["enrichment"]["type"] == "Running Shoes"),
        ("gender", "Male", lambda v: v["enrichment"]["gender"] == "male"),
        ("age_groups", "toddler", _enriched("age_groups", "toddler")),
        ("color", "NAVY", _enriched("color", "navy")),
        ("color_family", "blue", _enriched("color_family", "Blue")),
        ("is_activewear", "True", lambda v: v["enrichment"]["is_activewear"]),
        ("category_path.depth_0", "home & garden", _category(0, "Home & Garden")),
        ("category_path.depth_1", "Shoes", _category(1, "Shoes")),
        ("category_path.depth_2", "boots", _category(2, "Boots")),
        ("category_path.depth_3", "Tents", _category(3, "Tents")),
        ("fit", "Slim", _attribute("fit", "slim")),
        ("attribute_facets.fit", "slim", _attribute("fit", "slim")),
        ("material", "cast iron", _attribute("material", "cast iron")),
    ],
)
def test_every_facet_filters_by_its_canonical_value(
    name: str, value: str, matches: Callable[[dict[str, Any]], bool]
) -> None:
    with_brand = [view for view in _VIEWS if view["brand"] is not None]
    expected = [view["uuid"] for view in with_brand if name == "raw_brand_name" and matches(view)]
    facets = [{"name": name, "values": [value]}]
    assert _found(facets=facets) == (expected or _expected(matches))


def test_a_canonical_brand_finds_items_that_show_another_spelling() -> None:
    (page,) = _pages([_ARCADE], facets=[{"name": "brand_name", "values": ["Acme"]}], limit=100)
    assert {hit.product.raw_brand_name for hit in page} >= {"Acme", "ACME Inc."}


def test_values_of_a_facet_are_alternatives_and_facets_add_up() -> None:
    facets = [
        {"name": "color_family", "values": ["blue", "red"]},
        {"name": "gender", "values": ["female"]},
    ]
    assert _found(facets=facets) == _expected(
        lambda v: (
            bool({"Blue", "Red"} & set(v["enrichment"]["color_family"]))
            and v["enrichment"]["gender"] == "female"
        )
    )


@pytest.mark.parametrize("name", ["category_path.depth_6", "category_path.depth_7", "no_such"])
def test_a_facet_that_no_product_has_finds_nothing(name: str) -> None:
    assert _found(facets=[{"name": name, "values": ["boots"]}]) == []


def test_price_bounds_are_inclusive_and_leave_out_products_without_a_price() -> None:
    low, high = sorted(v["currentPrice"] for v in _VIEWS if v["currentPrice"] is not None)[
        100:301:200
    ]
    assert _found(price_min=low, price_max=high) == _expected(
        lambda v: v["currentPrice"] is not None and low <= v["currentPrice"] <= high
    )
    assert _found(price_min=low, price_max=low) == _expected(lambda v: v["currentPrice"] == low)
    assert _found(price_min=0) == _expected(lambda v: v["currentPrice"] is not None)
    assert _found(price_max=1e9) == _found(price_min=0)


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The indexes of the products that a search looked at."""
    indexes: list[int] = []
    make = Catalog.product

    def product(self: Catalog, index: int) -> Product:
        indexes.append(index)
        return make(self, index)

    monkeypatch.setattr(Catalog, "product", product)
    return indexes


def test_a_deep_page_looks_only_at_its_own_products(made: list[int]) -> None:
    million = make_catalog("northpeak", 1_000_000, seed=1)
    page, start = find_page(_query(), [million], None, 100)
    assert start is not None
    for place in (500_000, 999_850):
        made.clear()
        page, _ = find_page(_query(), [million], start._replace(place=place), 100)
        assert len(page) == 100
        assert made == list(range(place, place + 101))


def test_a_page_of_a_keyword_search_looks_at_a_bounded_number_of_products(made: list[int]) -> None:
    million = make_catalog("northpeak", 1_000_000, seed=1)
    query = _seed_query(q="tent")
    start = None
    for _ in range(4):
        made.clear()
        _, start = find_page(query, [million], start, 100)
        assert start is not None
        assert len(made) < 20_000


def _matching(**fields: Any) -> list[Product]:
    return [hit.product for hit in iter_matches(_query(**fields), [_ARCADE])]


def test_excluded_facets_leave_out_products_with_any_of_the_values() -> None:
    excluded = [{"name": "gender", "values": ["male", "Female"]}]
    found = _matching(exclude_facets=excluded)
    assert {product.gender for product in found} == {None, "unisex"}
    assert len(found) == sum(p.gender in (None, "unisex") for p in _matching())


def test_bounds_of_the_brand_quality_leave_out_products_without_one() -> None:
    found = _matching(brand_quality_min=2, brand_quality_max=3)
    scores = {quality_score(product.brand) for product in found if product.brand}
    assert scores == {2, 2.5, 3}
    assert all(product.brand for product in found)


def test_similar_brands_come_first_on_page_one_and_filter_nothing() -> None:
    query = _query(similar_to_brands=["voltaic"])
    hits, continues_at = find_page(query, [_ARCADE], None, 5)
    assert {hit.product.brand and hit.product.brand.name for hit in hits} == {"Voltaic"}
    assert continues_at is not None
    assert len(list(iter_matches(query, [_ARCADE]))) == 600


def test_removed_products_are_not_found() -> None:
    catalog = make_catalog("strada", 10, seed=1).without(0).without(4)
    (page,) = _pages([catalog])
    assert [hit.product.index for hit in page] == [1, 2, 3, 5, 6, 7, 8, 9]
