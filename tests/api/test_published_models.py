"""The models read each answer that the published models accept as they do."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from octogen_ai_sdk.generated import models as octogen
from pydantic import BaseModel

from octogen_dagster.api.catalog_states import catalogs_of_shop
from octogen_dagster.api.domain_coverage import DomainCoverageResponse
from octogen_dagster.api.http import Response
from octogen_dagster.api.me import MeResponse
from octogen_dagster.api.models import MerchantProductListPage, MerchantProductUrlLookupResponse
from octogen_dagster.api.product_count import FacetCounts
from octogen_dagster.api.responses import error_from_response, parsed
from octogen_dagster.api.search_request import SearchFilters
from octogen_dagster.errors import OctogenValidationError
from tests.published import answers, bodies, ok, published, text, timestamps, unknown_fields, values

# The published models accept an empty text as an identity.
identity = text.filter(bool)


def plain(value: Any, said: Any) -> Any:
    """The fields of a model that the published one has, as plain values."""
    match value, said:
        case BaseModel(), dict():
            return {name: plain(getattr(value, name), part) for name, part in said.items()}
        case list(), list():
            return [plain(entry, part) for entry, part in zip(value, said, strict=True)]
        case _:
            return value


def pages(*, lax: bool) -> st.SearchStrategy[dict[str, Any]]:
    products = answers(octogen.MerchantProductListItem, {"uuid": identity}, lax=lax)
    items = st.none() | st.lists(products, min_size=1, max_size=3)
    return answers(octogen.ProgrammaticProductSearchPage, {"items": items}, lax=lax)


@published
@given(bodies(pages(lax=False) | pages(lax=True)))
def test_a_page(content: bytes) -> None:
    theirs = octogen.ProgrammaticProductSearchPage.model_validate_json(content)
    said = values(theirs)
    said["items"] = said["items"] or []
    said["effective_query"] = json.loads(content)["effectiveQuery"]

    ours = parsed(MerchantProductListPage, ok(content), "Page")

    assert plain(ours, said) == said
    kept_as_it_came = unknown_fields(theirs.effective_query, "effectiveQuery.")
    assert unknown_fields(ours) == unknown_fields(theirs) - kept_as_it_came


LOOKUPS: dict[type[BaseModel], st.SearchStrategy[bytes]] = {
    model: bodies(answers(model) | answers(model, lax=True))
    for model in (
        octogen.MerchantProductUrlLookupResponse,
        octogen.ProgrammaticProductLookupResponse,
    )
}


@pytest.mark.parametrize("model", LOOKUPS)
@published
@given(data=st.data())
def test_a_lookup(model: type[BaseModel], data: st.DataObject) -> None:
    content = data.draw(LOOKUPS[model])
    theirs = model.model_validate_json(content)

    ours = parsed(MerchantProductUrlLookupResponse, ok(content), "Product")

    assert plain(ours, said := values(theirs)) == said
    assert unknown_fields(ours) == unknown_fields(theirs)


def shops(*, lax: bool) -> st.SearchStrategy[dict[str, Any]]:
    computed_at = text | timestamps(lax=lax)
    catalogs = answers(
        octogen.DomainCatalogCoverage, {"catalog": identity, "computedAt": computed_at}, lax=lax
    )
    catalogs_of_shop = st.lists(catalogs, min_size=1, max_size=2)
    return answers(octogen.DomainCoverageResponse, {"catalogs": catalogs_of_shop}, lax=lax)


@published
@given(bodies(shops(lax=False) | shops(lax=True)))
def test_a_shop(content: bytes) -> None:
    theirs = octogen.DomainCoverageResponse.model_validate_json(content)

    ours = parsed(DomainCoverageResponse, ok(content), "Shop")

    assert plain(ours, said := values(theirs)) == said
    assert unknown_fields(ours) == unknown_fields(theirs)
    states = catalogs_of_shop(ours, "shop.example")
    unusable = [state for state in states.catalogs if state.computed_at is None]
    assert len(states.catalogs) == len(theirs.catalogs)
    assert len(states.warnings) == len(unusable)


@published
@given(bodies(answers(octogen.MeResponse) | answers(octogen.MeResponse, lax=True)))
def test_the_account_of_a_key(content: bytes) -> None:
    theirs = octogen.MeResponse.model_validate_json(content)

    ours = parsed(MeResponse, ok(content), "Account")

    assert plain(ours, said := values(theirs)) == said
    assert unknown_fields(ours) == unknown_fields(theirs)


def counts(*, lax: bool) -> st.SearchStrategy[dict[str, Any]]:
    """Answers to a request that names one facet."""
    count = {"count": st.integers(0, 2**53)}
    values = st.lists(answers(octogen.ProgrammaticFacetValueCount, count, lax=lax), max_size=3)
    facet = answers(octogen.ProgrammaticFacetValueCounts, {"values": values}, lax=lax)
    facets = st.lists(facet, min_size=1, max_size=1)
    return answers(octogen.ProgrammaticFacetCountsResponse, {"facets": facets}, lax=lax)


@published
@given(bodies(counts(lax=False) | counts(lax=True)))
def test_a_count_of_products(content: bytes) -> None:
    (theirs,) = octogen.ProgrammaticFacetCountsResponse.model_validate_json(content).facets

    products = parsed(FacetCounts, ok(content), "Count").products(SearchFilters())

    assert products == sum(each.count for each in theirs.values)


@published
@given(bodies(answers(octogen.HTTPValidationError)))
def test_the_reasons_of_a_refusal(content: bytes) -> None:
    theirs = octogen.HTTPValidationError.model_validate_json(content)

    error = error_from_response(Response(422, content=content), "Search")

    assert isinstance(error, OctogenValidationError)
    assert error.detail == json.loads(content).get("detail")
    message = str(error)
    assert message.startswith("Search failed: 422 ")
    assert message.endswith(". Correct the field named above.")
    assert len(message) < 2_000
    for reason in (theirs.detail or ())[:5]:
        text = " ".join(reason.msg[:200].split())
        assert text in message or repr(text) in message
