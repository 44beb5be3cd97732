"""Requests of the client, judged by the models of Octogen's published SDK."""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from octogen_ai_sdk.generated.models import ProgrammaticProductSearchRequest
from octogen_ai_sdk.operations import OPERATIONS
from octogen_ai_sdk.request_context import (
    MAX_CONTEXT_HEADER_BYTES,
    REQUEST_CONTEXT_HEADER,
    RequestContext,
)
from pydantic import ValidationError

from octogen_dagster.api.facets import FacetName
from octogen_dagster.api.search_request import SearchRequest
from octogen_dagster.errors import OctogenNotFoundError
from octogen_dagster.frames.search import ProductSearch
from tests.api.clients import Transport, open_client
from tests.api.servers import RawServer, Received, http, page

EVERY_FIELD: dict[str, Any] = {
    "q": "linen dress",
    "facets": [{"name": "gender", "values": ["female", "unisex"]}],
    "price_min": 0,
    "price_max": 99.5,
    "understand": True,
    "exclude_facets": [{"name": "pattern", "values": ["floral"]}],
    "omit_generated_facets": ["color"],
    "fallback_category": ["apparel & accessories", "clothing"],
    "brand_quality_min": 2,
    "brand_quality_max": 6,
    "similar_to_brands": ["Acme"],
    "relax": True,
}
NOT_OFFERED = {"debug", "diversity"}


def current_service(request: Received) -> list[bytes]:
    """Refuse what the published model refuses, and answer anything else with a page."""
    try:
        ProgrammaticProductSearchRequest.model_validate_json(request.body)
    except ValidationError as error:
        detail = [each | {"loc": ["body", *each["loc"]]} for each in error.errors()]
        return http(422, {"detail": detail})
    return http(200, page(["a"]))


async def test_each_request_says_that_no_shopper_waits_for_it(transport: Transport) -> None:
    with RawServer(lambda _: http(200, page(["a"]))) as server:
        async with open_client(server, transport) as client:
            await client.search_products()
            await client.search_products(catalog="acme")
    for request in server.received:
        header = request.headers[REQUEST_CONTEXT_HEADER.lower()]
        assert header.isascii()
        assert len(header) <= MAX_CONTEXT_HEADER_BYTES
        assert RequestContext.model_validate_json(header) == RequestContext(
            trigger="background", application="octogen-dagster"
        )


def test_a_search_offers_every_field_of_the_published_model() -> None:
    published = ProgrammaticProductSearchRequest.model_fields.keys() - {"catalogs"}
    assert SearchRequest.model_fields.keys() - {"catalog"} == published - NOT_OFFERED


async def test_a_search_with_every_field_is_accepted(transport: Transport) -> None:
    with RawServer(current_service) as server:
        async with open_client(server, transport) as client:
            await client.search_products(catalog="acme", cursor="c", limit=7, **EVERY_FIELD)
    sent = ProgrammaticProductSearchRequest.model_validate_json(server.received[-1].body)
    assert sent == ProgrammaticProductSearchRequest.model_validate(
        EVERY_FIELD | {"catalogs": ["acme"], "cursor": "c", "limit": 7}
    )


texts = st.text(st.characters(codec="utf-8"), min_size=1).filter(str.strip)
facets = st.lists(
    st.fixed_dictionaries(
        {
            "name": texts.filter(lambda name: name.lower() not in set(FacetName)),
            "values": st.lists(texts, min_size=1, max_size=3),
        }
    ),
    max_size=4,
    unique_by=lambda facet: str(facet["name"]).strip().lower(),
)


@st.composite
def searches(draw: st.DrawFn) -> ProductSearch:
    """Any search that a snapshot can have."""
    fields: dict[str, Any] = {
        "q": draw(st.none() | texts),
        "understand": draw(st.booleans()),
        "facets": draw(facets),
        "exclude_facets": draw(facets),
        "similar_to_brands": draw(st.lists(texts, max_size=10)),
        "page_size": draw(st.integers(1, 100)),
        "max_products": draw(st.none() | st.integers(1, 1_000)),
    }
    for name, bound in (("price", st.floats(0, 1e6)), ("brand_quality", st.floats(1, 6))):
        low, high = sorted((draw(bound), draw(bound)))
        fields |= {
            f"{name}_min": draw(st.sampled_from([None, low])),
            f"{name}_max": draw(st.sampled_from([None, high])),
        }
    if fields["understand"] and fields["q"]:
        own = {facet["name"].strip().lower() for facet in fields["facets"]}
        omitted = st.lists(texts, max_size=3, unique_by=lambda name: name.strip().lower())
        fields |= {
            "omit_generated_facets": [
                name for name in draw(omitted) if name.strip().lower() not in own
            ],
            "fallback_category": draw(st.lists(texts, max_size=4)),
            "relax": draw(st.booleans()),
        }
    return ProductSearch.model_validate(fields)


@pytest.mark.filterwarnings("ignore:The facet")
@given(searches())
def test_the_published_model_takes_any_search_and_reads_it_as_meant(search: ProductSearch) -> None:
    body = search.request(None).body()
    sent = ProgrammaticProductSearchRequest.model_validate(body).model_dump()
    meant = search.model_dump(exclude={"catalogs", "page_size", "max_products"})
    for name, value in meant.items():
        if name == "understand":
            # Without keywords there is nothing to understand.
            assert sent[name] == value or not search.has_keywords
        else:
            assert sent[name] == (value or None) or sent[name] == value
    assert not (search.has_keywords and "understand" not in body)


async def test_each_operation_of_the_client_is_a_published_one_or_the_seed_s() -> None:
    with RawServer(lambda _: http(404, {"detail": "Not Found"})) as server:
        async with open_client(server) as client:
            calls = {
                "list_catalogs": client.list_catalogs(),
                "list_catalog_states": client.list_catalog_states(),
                "get_me": client.get_me(),
                "count_products": client.count_products(ProductSearch()),
                "get_domain": client.get_domain("{host}"),
                "search_products": client.search_products(),
                "lookup_product": client.lookup_product("https://shop.example/1"),
            }
            for call in calls.values():
                with pytest.raises(OctogenNotFoundError):
                    await call
    sent = {(each.method, unquote(each.target).removeprefix("/v1")) for each in server.received}
    assert sent - set(OPERATIONS.values()) == {("GET", "/catalogs")}  # the seed's own
    assert sent & set(OPERATIONS.values()) == {
        OPERATIONS[name]
        for name in (
            "getMe",
            "countProductFacets",
            "getDomain",
            "searchProducts",
            "lookupProduct",
        )
    }
