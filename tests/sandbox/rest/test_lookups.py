"""Lookups of the current generation: in the index, at the shop, and the addresses in between."""

from typing import Any

import httpx
import pytest

from octogen_dagster.sandbox.data.catalog import Catalog, make_catalog
from octogen_dagster.sandbox.data.product import Product
from octogen_dagster.sandbox.server import Sandbox

STRADA = make_catalog("strada", 400, seed=1)


@pytest.fixture
def sandbox() -> Any:
    with Sandbox(catalogs={"strada": 400}, generation="current") as running:
        yield running


@pytest.fixture
def client(sandbox: Sandbox) -> Any:
    headers = {"Authorization": f"Bearer {sandbox.api_key}"}
    with httpx.Client(base_url=sandbox.base_url, headers=headers) as connected:
        yield connected


def lookup(client: httpx.Client, url: str, **fields: str) -> httpx.Response:
    return client.post("/products/lookup", json={"url": url, **fields})


def first(catalog: Catalog, is_variant: bool) -> Product:
    products = map(catalog.product, range(1, catalog.size))
    return next(product for product in products if product.is_variant is is_variant)


def test_an_indexed_product_says_how_it_was_found(client: httpx.Client) -> None:
    product = STRADA.product(2)
    response = lookup(client, product.url)
    found = response.json()
    assert found["source"] == "indexed"
    assert found["matchedVia"] == "exact"
    assert found["requestId"] == response.headers["x-request-id"]
    assert found["requestedUrl"] == product.url
    assert found["normalizedUrl"] == product.url.replace("www.", "")
    assert found["product"]["uuid"] == product.uuid
    again = lookup(client, found["normalizedUrl"], matchMode="strict").json()
    assert again["product"]["uuid"] == product.uuid
    assert again["matchedVia"] == "normalized_exact"


@pytest.mark.parametrize("change", [str.upper, lambda path: f"{path}?v1=5"])
def test_only_a_loose_match_ignores_case_and_parameters(client: httpx.Client, change: Any) -> None:
    product = STRADA.product(2)
    host = "https://www.strada.example"
    url = host + change(product.url.removeprefix(host))
    found = lookup(client, url).json()
    assert (found["source"], found["matchedVia"]) == ("indexed", "loose")
    assert found["product"]["uuid"] == product.uuid
    strict = lookup(client, url, matchMode="strict", resolutionMode="index_only")
    assert (strict.status_code, strict.json()) == (404, {"detail": "product_not_found"})


def test_a_removed_variant_resolves_to_its_sibling_unless_strict(
    sandbox: Sandbox, client: httpx.Client
) -> None:
    variant = first(STRADA, is_variant=True)
    sandbox.remove_product(variant.url)
    found = lookup(client, variant.url, resolutionMode="index_only").json()
    assert found["product"]["uuid"] == STRADA.product(variant.index - 1).uuid
    strict = lookup(client, variant.url, resolutionMode="index_only", matchMode="strict")
    assert strict.status_code == 404


def test_a_removed_product_comes_from_the_shop(sandbox: Sandbox, client: httpx.Client) -> None:
    product = next(p for p in map(STRADA.product, range(400)) if p.title and not p.is_variant)
    sandbox.remove_product(product.url)
    found = lookup(client, product.url).json()
    assert found["source"] == "on_demand"
    for name in ("catalogKey", "catalogDisplayName", "sourceBaseUrl"):
        assert found[name] is None
    for name in ("uuid", "catalogKey", "isActive"):
        assert found["product"][name] is None
    assert found["product"]["title"] == product.title
    assert found["resolvedUrl"] == product.url
    assert lookup(client, product.url, resolutionMode="index_only").status_code == 404


def test_a_product_of_a_revoked_catalog_comes_from_the_shop(
    sandbox: Sandbox, client: httpx.Client
) -> None:
    sandbox.revoke("strada")
    found = lookup(client, STRADA.product(2).url).json()
    assert (found["source"], found["product"]["title"]) == ("on_demand", STRADA.product(2).title)


def test_any_other_page_can_be_fetched(client: httpx.Client) -> None:
    found = lookup(client, "https://nowhere.example/products/blue-chair?utm_source=x").json()
    assert found["source"] == "on_demand"
    assert found["product"]["title"] == "blue chair"
    assert found["resolution"]["missingFields"] == ["currentPrice", "brand"]
    assert found["warnings"] == ["price_currency_missing"]


def test_the_index_can_be_skipped_and_the_cache_as_well(client: httpx.Client) -> None:
    url = STRADA.product(2).url
    policies = ["prefer_cache", "prefer_cache", "refresh"]
    found = [
        lookup(client, url, resolutionMode="on_demand_only", onDemandCachePolicy=policy).json()
        for policy in policies
    ]
    assert [answer["source"] for answer in found] == ["on_demand"] * 3
    assert [answer["cacheStatus"] for answer in found] == ["miss", "hit", "refresh"]


@pytest.mark.parametrize(
    ("url", "detail"),
    [("nonsense", "invalid_product_url"), ("http://localhost/x", "unsafe_url")],
)
def test_an_address_that_is_not_looked_up_is_a_422_with_a_text(
    client: httpx.Client, url: str, detail: str
) -> None:
    response = lookup(client, url)
    assert (response.status_code, response.json()) == (422, {"detail": detail})


def test_markdown_is_not_offered(client: httpx.Client) -> None:
    response = lookup(client, STRADA.product(2).url, format="md")
    (problem,) = response.json()["detail"]
    assert (problem["loc"], problem["type"]) == (["body", "format"], "literal_error")
