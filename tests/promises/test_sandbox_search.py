"""What a search of the sandbox finds is what the full views of its products say."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import httpx
import pytest

from octogen_dagster.sandbox.server import Sandbox
from tests.promises.sandbox_calls import all_items, connect, iter_pages, look_up, search, uuids

View = dict[str, Any]


class Shop(NamedTuple):
    """A shop that sells everything, and the full views of its products by uuid, in order."""

    client: httpx.Client
    views: dict[str, View]


@pytest.fixture(scope="module")
def shop() -> Iterator[Shop]:
    with Sandbox(catalogs={"grand-arcade": 500}) as sandbox, connect(sandbox) as client:
        urls = [item["productUrl"] for item in all_items(client)]
        views = [look_up(client, url).json()["product"] for url in urls]
        yield Shop(client, {view["uuid"]: view for view in views})


def found(shop: Shop, **body: Any) -> list[str]:
    return uuids(all_items(shop.client, **body))


def facet(name: str, *values: str) -> list[dict[str, Any]]:
    return [{"name": name, "values": [*values]}]


def check(shop: Shop, got: list[str], matches: Callable[[View], bool | None]) -> None:
    """Check that the products whose view says so were found, once, and in the shop's order.

    A view whose field is null or absent says nothing: `matches` is None.
    """
    assert got == [each for each in shop.views if each in set(got)]
    judged = {each: matches(view) for each, view in shop.views.items()}
    assert {each for each, is_match in judged.items() if is_match} <= set(got)
    assert not {each for each, is_match in judged.items() if is_match is False} & set(got)
    assert 0 < len(got) < len(shop.views), "the example must tell matches from others"


def enriched(*path: str, value: Any, at: int | None = None) -> Callable[[View], bool | None]:
    """True for a view that has the value at this path of its enrichment; `at` is for lists."""

    def matches(view: View) -> bool | None:
        known: Any = view.get("enrichment")
        for name in path:
            known = (known or {}).get(name)
        if known is None:
            return None
        return value in known[at : at + 1] if at is not None else value in (known, *known)

    return matches


@pytest.mark.parametrize(
    ("name", "value", "matches"),
    [
        ("brand_name", "acme", enriched("canonical_brand", "brand_name", value="Acme")),
        ("brand_slug", "northpeak", enriched("canonical_brand", "brand_slug", value="northpeak")),
        (
            "raw_brand_name",
            "strada s.p.a.",
            lambda view: (view.get("brand") or {}).get("name") == "STRADA S.p.A.",
        ),
        ("product_type", "running shoes", enriched("type", value="Running Shoes")),
        ("age_groups", "kids", enriched("age_groups", value="kids")),
        ("color", "NAVY", enriched("color", value="navy")),
        ("color_family", "blue", enriched("color_family", value="Blue")),
        (
            "category_path.depth_0",
            "sporting goods",
            enriched("category_path", value="Sporting Goods", at=0),
        ),
        ("category_path.depth_1", "Shoes", enriched("category_path", value="Shoes", at=1)),
        ("category_path.depth_3", "Tents", enriched("category_path", value="Tents", at=3)),
        ("fit", "Slim", enriched("attributes", "fit", value="slim")),
        ("attribute_facets.fit", "slim", enriched("attributes", "fit", value="slim")),
        ("material", "leather", enriched("attributes", "material", value="leather")),
    ],
)
def test_every_facet_filters_by_its_canonical_value(
    shop: Shop, name: str, value: str, matches: Callable[[View], bool | None]
) -> None:
    check(shop, found(shop, facets=facet(name, value)), matches)


def test_values_of_a_facet_are_alternatives_and_facets_add_up(shop: Shop) -> None:
    colors, women = facet("color_family", "blue", "red"), facet("gender", "female")
    blue, red = (found(shop, facets=facet("color_family", color)) for color in ("blue", "red"))
    either = set(blue) | set(red)
    assert set(found(shop, facets=colors)) == either
    assert set(found(shop, facets=colors + women)) == either & set(found(shop, facets=women))


def test_a_facet_and_its_exclusion_split_a_catalog(shop: Shop) -> None:
    for filters in (facet("brand_name", "Acme", "northpeak"), facet("gender", "male", "Female")):
        parts = [found(shop, facets=filters), found(shop, exclude_facets=filters)]
        assert all(parts)
        assert sorted(parts[0] + parts[1]) == sorted(shop.views)


def test_a_canonical_brand_finds_items_that_show_another_spelling(shop: Shop) -> None:
    items = all_items(shop.client, facets=facet("brand_name", "acme"))
    assert {item["brand"]["name"] for item in items} >= {"Acme", "ACME Inc."}


def test_a_facet_that_does_not_exist_is_refused_and_one_without_products_finds_nothing(
    shop: Shop,
) -> None:
    assert search(shop.client, facets=facet("category_path.depth_7", "x")).status_code == 422
    assert search(shop.client, facets=facet("no_such", "x")).status_code == 422
    assert found(shop, facets=facet("category_path.depth_6", "boots")) == []


def test_price_bounds_are_inclusive_and_leave_out_products_without_a_price(shop: Shop) -> None:
    prices = {each: view.get("currentPrice") for each, view in shop.views.items()}
    low, high = sorted(price for price in prices.values() if price is not None)[100:301:200]

    def within(low: float, high: float) -> list[str]:
        return [e for e, price in prices.items() if price is not None and low <= price <= high]

    assert found(shop, price_min=low, price_max=high) == within(low, high)
    assert found(shop, price_min=low, price_max=low) == within(low, low)
    assert found(shop, price_max=1e9) == found(shop, price_min=0) == within(0, 1e9)


def test_all_keywords_must_match_and_page_one_is_ranked_by_relevance(shop: Shop) -> None:
    def pages(q: str) -> list[list[dict[str, Any]]]:
        return list(iter_pages(shop.client, q=q, understand=False, limit=10))

    first, *later = pages("boots")
    titles = [item.get("title") for item in first]
    assert any(title and "Boots" in title for title in titles[:1])
    shown = [each for page in later for each in uuids(page)]
    assert shown == [each for each in shop.views if each in set(shown)]
    (narrower, *_) = pages("chelsea boots")
    assert len(narrower) > 0
    assert {*uuids(narrower)} < {*shown}
    assert pages("chelsea zebra") == [[]]


def counted(values: list[dict[str, Any]]) -> dict[str, int]:
    return {value["value"]: value["count"] for value in values}


def test_counts_are_those_of_searches(shop: Shop) -> None:
    women, shoes = facet("gender", "female"), facet("category_path.depth_1", "shoes")
    body = {
        "facets": women,
        "facet_names": ["color_family"],
        "attributes": ["material"],
        "categories": [{"key": "shoes", "facets": shoes}],
        "value_limit": 3,
    }
    answer = shop.client.post("/products/facet-counts", json=body).json()
    (category_count,) = answer["categories"]
    assert category_count == {"key": "shoes", "count": len(found(shop, facets=women + shoes))}
    for name, answered in (
        ("color_family", answer["facets"][0]["values"]),
        ("material", answer["attributes"][0]["values"]),
    ):
        counts = counted(answered)
        assert list(counts.values()) == sorted(counts.values(), reverse=True)
        assert len(counts) == 3
        for value, count in counts.items():
            assert count == len(found(shop, facets=women + facet(name, value)))


def test_a_facet_is_counted_without_the_callers_own_filter_by_it(shop: Shop) -> None:
    def colors(**body: Any) -> dict[str, int]:
        answer = shop.client.post("/products/facet-counts", json=body).json()
        return counted(answer["facets"][0]["values"])

    assert colors(facets=facet("color_family", "black")) == colors()
    slim = facet("attribute_facets.fit", "slim")
    answer = shop.client.post(
        "/products/facet-counts", json={"attributes": ["fit"], "facets": slim}
    ).json()
    assert len(counted(answer["attributes"][0]["values"])) > 1


def test_products_are_believable(shop: Shop) -> None:
    views = [*shop.views.values()]
    titles = " ".join(view.get("title") or "" for view in views)
    assert '"' in titles
    assert "東京" in titles
    assert len({view.get("currency") for view in views}) > 3
    reduced = [
        (view["originalPrice"], view["currentPrice"]) for view in views if view.get("originalPrice")
    ]
    assert 50 < len(reduced) < 300
    assert all(before > now for before, now in reduced)
    variants = {
        view["productUrl"].partition("?variant=")[0] for view in views if "?" in view["productUrl"]
    }
    assert 5 < len(variants) < 60
    assert variants <= {view["productUrl"] for view in views}
