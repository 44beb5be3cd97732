"""Each answer of the sandbox of today is what the published models name, and names all of it."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Iterator
from typing import Any, get_args

import httpx
import pytest
from octogen_ai_sdk import OctogenClient, OctogenInsufficientCreditError
from octogen_ai_sdk.generated import models
from pydantic import BaseModel

from octogen_dagster.sandbox.server import Sandbox
from tests.promises.sandbox.sandbox_calls import all_items, connect, look_up, search

MAPPINGS = {f"enrichment.{name}" for name in ("attributes", "attribute_handles", "classification")}
"""Objects whose names are no fields."""

NEVER_KNOWN = {"displayMatchScore", "rawScore", "details.dimensions", "brand.url"}
"""Fields that need not be filled: the scores go with keywords."""


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(catalogs={"grand-arcade": 700, "grand-arcade.outlet": 0}) as running:
        yield running


@pytest.fixture(scope="module")
def client(sandbox: Sandbox) -> Iterator[httpx.Client]:
    with connect(sandbox) as connected:
        yield connected


@pytest.fixture(scope="module")
def items(client: httpx.Client) -> list[dict[str, Any]]:
    return all_items(client) + all_items(client, q="shoes", understand=False)


@pytest.fixture(scope="module")
def lookups(client: httpx.Client, items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [look_up(client, item["productUrl"]).json() for item in items[:300]]


def models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from models_in(argument)


def fields_within(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """All fields of a model and of those within, by their paths in JSON."""
    for name, field in model.model_fields.items():
        path = f"{prefix}{field.alias or name}"
        yield path, field
        for inner in () if path in MAPPINGS else models_in(field.annotation):
            yield from fields_within(inner, f"{path}.")


def states_of(model: type[BaseModel], values: list[dict[str, Any]]) -> dict[str, Counter[str]]:
    """How often each field of a model was sent, null and absent."""
    states: dict[str, Counter[str]] = defaultdict(Counter)

    def look(model: type[BaseModel], value: dict[str, Any], prefix: str) -> None:
        for name, field in model.model_fields.items():
            wire = field.alias or name
            path, sent = f"{prefix}{wire}", value.get(wire)
            state = "absent" if wire not in value else "null" if sent is None else "sent"
            states[path][state] += 1
            for inner in () if path in MAPPINGS else models_in(field.annotation):
                for part in sent if isinstance(sent, list) else [] if sent is None else [sent]:
                    look(inner, part, f"{path}.")

    for value in values:
        look(model, value, "")
    return states


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["items", "lookups"])
def test_every_field_is_sent_and_what_may_be_null_or_absent_sometimes_is(
    kind: str, items: list[dict[str, Any]], lookups: list[dict[str, Any]]
) -> None:
    model: type[BaseModel] = models.MerchantProductListItem
    values = items
    if kind == "lookups":
        model, values = models.MerchantProductView, [each["product"] for each in lookups]
    for value in values:
        model.model_validate(value)
    states = states_of(model, values)
    assert {path for path, _ in fields_within(model) if not states[path]["sent"]} <= NEVER_KNOWN
    whole = {path for path, seen in states.items() if seen.keys() == {"sent"}}
    gapped = {path for path, seen in states.items() if seen["null"] and seen["absent"]}
    required = {path for path, field in fields_within(model) if field.is_required()}
    assert {"uuid", "productUrl", "brand.name", "images.url"} <= whole
    assert {"brand", "imageUrl", "primaryImage", "images.cdnUrl"} <= gapped
    assert not gapped & required
    if kind == "lookups":
        expected = {"description", "enrichment", "variants.sku", "reviews.body", "identifiers.gtin"}
        assert expected <= gapped
        assert len(gapped) > 60
        # The published client refuses nulls in lists.
        for path in ("images", "sizes", "variants", "tags", "breadcrumbs", "isActive"):
            assert states[path].keys() == {"sent", "absent"}, path


def test_pages_are_those_of_the_published_model(client: httpx.Client) -> None:
    query = models.ProgrammaticProductSearchEffectiveQuery.model_fields
    for body in (
        {},
        {"q": "women's acme boots under 400", "relax": True},
        {
            "q": "jeans",
            "facets": [{"name": "gender", "values": ["male"]}],
            "exclude_facets": [{"name": "color_family", "values": ["red"]}],
            "similar_to_brands": ["Acme"],
            "catalogs": ["grand-arcade", "nosuch"],
        },
    ):
        page = search(client, limit=100, **body).json()
        models.ProgrammaticProductSearchPage.model_validate(page)
        assert page["effectiveQuery"].keys() == {f.alias or name for name, f in query.items()}


def test_lookups_are_those_of_the_published_models(lookups: list[dict[str, Any]]) -> None:
    for answer in lookups:
        models.MerchantProductUrlLookupResponse.model_validate(answer)
        models.ProgrammaticProductLookupResponse.model_validate(answer)
        fields = models.MerchantProductUrlLookupResponse.model_fields
        assert answer.keys() == {field.alias or name for name, field in fields.items()}


@pytest.mark.parametrize(
    ("path", "model"),
    [("/domains/grandarcade.example", models.DomainCoverageResponse), ("/me", models.MeResponse)],
)
def test_answers_about_a_shop_and_a_key_are_those_of_the_published_models(
    client: httpx.Client, path: str, model: type[BaseModel]
) -> None:
    answer = client.get(path).json()
    model.model_validate(answer)
    states = states_of(model, [answer])
    named = {path for path, _ in fields_within(model) if not path.startswith("catalogs.price.")}
    assert {path for path in named if not states[path]} == set()


def test_counts_are_those_of_the_published_model(client: httpx.Client) -> None:
    shoes = [{"name": "category_path.depth_1", "values": ["shoes"]}]
    body = {
        "attributes": ["material"],
        "categories": [{"key": "shoes", "facets": shoes}],
        "facet_names": ["color_family", "category_path.depth_0"],
    }
    answer = client.post("/products/facet-counts", json=body).json()
    models.ProgrammaticFacetCountsResponse.model_validate(answer)
    states = states_of(models.ProgrammaticFacetCountsResponse, [answer])
    for path in ("attributes.values.count", "categories.count", "facets.values.value"):
        assert states[path]["sent"] > 0


class TestPublishedClient:
    @pytest.fixture
    async def published(self, sandbox: Sandbox) -> AsyncIterator[OctogenClient]:
        async with OctogenClient(api_key=sandbox.api_key, base_url=sandbox.base_url) as client:
            yield client

    async def test_it_pages_through_a_search_to_the_end(self, published: OctogenClient) -> None:
        seen: list[str] = []
        cursor = None
        while True:
            page = await published.search_products(limit=90, cursor=cursor)
            seen += [item.uuid for item in page.items]
            cursor = page.next_cursor
            if cursor is None:
                break
        assert len(seen) == len(set(seen)) == 700
        assert page.effective_query is not None
        assert page.request_id

    async def test_it_is_told_that_the_credit_is_spent(self) -> None:
        with Sandbox(catalogs=1, credit_usd=0) as broke:
            async with OctogenClient(api_key=broke.api_key, base_url=broke.base_url) as client:
                with pytest.raises(OctogenInsufficientCreditError) as caught:
                    await client.search_products()
        assert caught.value.detail["top_up_url"].startswith("https://")
