"""Every answer of the current generation is what the published models name, and names all of it."""

from collections.abc import Iterator
from typing import Any, get_args

import httpx
import pytest
from octogen_ai_sdk.generated import models
from pydantic import BaseModel

from octogen_dagster.sandbox.server import Sandbox
from tests.sandbox.calls import connect, search

_MAPPINGS = {
    f"product.enrichment.{name}" for name in ("attributes", "attribute_handles", "classification")
}
_SEARCHES: list[dict[str, Any]] = [
    {},
    {"q": "women's acme boots under 400", "relax": True},
    {"q": "boots", "understand": False, "price_min": 1},
    {
        "q": "slim jeans",
        "facets": [{"name": "gender", "values": ["male"]}],
        "exclude_facets": [{"name": "color_family", "values": ["red"]}],
        "brand_quality_min": 1,
        "brand_quality_max": 6,
        "similar_to_brands": ["Acme"],
        "catalogs": ["grand-arcade", "nosuch"],
    },
]


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    catalogs = {"grand-arcade": 300, "grand-arcade.outlet": 0}
    sandbox = Sandbox(catalogs=catalogs, generation="current")
    with sandbox, connect(sandbox) as connected:
        yield connected


def names_within(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """The names of all fields of a model and of the models within."""
    for name, field in model.model_fields.items():
        path = f"{prefix}{field.alias or name}"
        yield path
        for inner in _models_in(field.annotation):
            yield from names_within(inner, f"{path}.")


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models_in(argument)


def names_sent(value: Any, prefix: str = "") -> Iterator[str]:
    if isinstance(value, list):
        for part in value:
            yield from names_sent(part, prefix)
    elif isinstance(value, dict):
        for name, part in value.items():
            yield f"{prefix}{name}"
            if f"{prefix}{name}" not in _MAPPINGS:
                yield from names_sent(part, f"{prefix}{name}.")


def lookups(client: httpx.Client) -> list[dict[str, Any]]:
    items = search(client, limit=100).json()["items"]
    bodies = [{"url": item["productUrl"]} for item in items]
    bodies += [{**body, "resolutionMode": "on_demand_only"} for body in bodies[:30]]
    return [client.post("/products/lookup", json=body).json() for body in bodies]


def test_pages_are_those_of_the_published_model(client: httpx.Client) -> None:
    pages = [search(client, limit=100, **body).json() for body in _SEARCHES]
    for page in pages:
        models.ProgrammaticProductSearchPage.model_validate(page)
    named = set(names_within(models.ProgrammaticProductSearchPage))
    dropped = {f"effectiveQuery.relaxation.droppedFacets.{n}" for n in ("name", "values", "source")}
    assert named - dropped == {name for page in pages for name in names_sent(page)} - dropped


def test_lookups_are_those_of_the_published_models(client: httpx.Client) -> None:
    found = lookups(client)
    for answer in found:
        models.MerchantProductUrlLookupResponse.model_validate(answer)
        models.ProgrammaticProductLookupResponse.model_validate(answer)
    named = set(names_within(models.MerchantProductUrlLookupResponse))
    named = {name for name in named if not name.startswith("product.enrichment.attributes.")}
    assert named == {name for answer in found for name in names_sent(answer)}


def test_the_coverage_of_a_host_is_that_of_the_published_model(client: httpx.Client) -> None:
    answer = client.get("/domains/grandarcade.example").json()
    models.DomainCoverageResponse.model_validate(answer)
    assert set(names_within(models.DomainCoverageResponse)) == set(names_sent(answer))


def test_what_a_caller_is_told_is_the_published_model(client: httpx.Client) -> None:
    answer = client.get("/me").json()
    models.MeResponse.model_validate(answer)
    assert set(names_within(models.MeResponse)) - {"key.source"} == set(names_sent(answer))


def test_counts_are_those_of_the_published_model(client: httpx.Client) -> None:
    shoes = [{"name": "category_path.depth_1", "values": ["shoes"]}]
    body = {
        "q": "women",
        "attributes": ["material"],
        "categories": [{"key": "shoes", "facets": shoes}],
        "facet_names": ["color_family", "category_path.depth_0"],
        "exclude_facets": shoes,
    }
    answer = client.post("/products/facet-counts", json=body).json()
    models.ProgrammaticFacetCountsResponse.model_validate(answer)
    named = set(names_within(models.ProgrammaticFacetCountsResponse))
    sent = set(names_sent(answer))
    assert {n for n in named if "relaxation." not in n} == sent


@pytest.mark.parametrize(
    ("path", "body"),
    [("/products/search", {"limit": 0}), ("/products/facet-counts", {"facet_names": ["x"]})],
)
def test_a_refusal_is_that_of_the_published_model(
    client: httpx.Client, path: str, body: dict[str, Any]
) -> None:
    response = client.post(path, json=body)
    assert response.status_code == 422
    assert models.HTTPValidationError.model_validate(response.json()).detail


def test_every_field_of_the_published_requests_is_taken(client: httpx.Client) -> None:
    request = models.ProgrammaticProductSearchRequest.model_validate(
        {name: value for body in _SEARCHES for name, value in body.items()} | {"understand": True}
    )
    sent = request.model_dump(by_alias=True)
    assert search(client, **sent).status_code == 200
    lookup = models.ProgrammaticProductLookupRequest.model_validate({"url": "https://x.example/a"})
    answer = client.post("/products/lookup", json=lookup.model_dump(by_alias=True))
    assert answer.status_code == 200
    counts = models.ProgrammaticFacetCountsRequest.model_validate({"q": "boots"})
    answer = client.post("/products/facet-counts", json=counts.model_dump(by_alias=True))
    assert answer.status_code == 200
