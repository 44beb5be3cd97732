"""Each answer that the published models accept is read by the client, as they say."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from octogen_ai_sdk.generated import models as octogen
from pydantic import BaseModel

from octogen_dagster import ShopCatalogs
from octogen_dagster.errors import OctogenValidationError
from tests.contract.asked import asked
from tests.published import answers, bodies, published, text, timestamps, unknown_fields, values

identity = text.filter(bool)  # the published models accept an empty text as an identity
URL = "https://shop.example/1"


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


@pytest.mark.slow
@published
@given(bodies(pages(lax=False) | pages(lax=True)))
def test_a_page(content: bytes) -> None:
    theirs = octogen.ProgrammaticProductSearchPage.model_validate_json(content)
    said = values(theirs)
    said["items"] = said["items"] or []
    said["effective_query"] = json.loads(content)["effectiveQuery"]

    ours = asyncio.run(asked(content, lambda client: client.search_products()))

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


@pytest.mark.slow
@pytest.mark.parametrize("model", LOOKUPS)
@published
@given(data=st.data())
def test_a_lookup(model: type[BaseModel], data: st.DataObject) -> None:
    content = data.draw(LOOKUPS[model])
    theirs = model.model_validate_json(content)

    ours = asyncio.run(asked(content, lambda client: client.lookup_product(URL)))

    assert plain(ours, said := values(theirs)) == said
    assert unknown_fields(ours) == unknown_fields(theirs)


def shops(*, lax: bool) -> st.SearchStrategy[dict[str, Any]]:
    computed_at = text | timestamps(lax=lax)
    catalogs = answers(
        octogen.DomainCatalogCoverage, {"catalog": identity, "computedAt": computed_at}, lax=lax
    )
    catalogs_of_shop = st.lists(catalogs, min_size=1, max_size=2)
    return answers(octogen.DomainCoverageResponse, {"catalogs": catalogs_of_shop}, lax=lax)


@pytest.mark.slow
@published
@given(bodies(shops(lax=False) | shops(lax=True)))
def test_a_shop_and_its_catalogs(content: bytes) -> None:
    theirs = octogen.DomainCoverageResponse.model_validate_json(content)

    ours = asyncio.run(asked(content, lambda client: client.get_domain("shop.example")))
    listed = asyncio.run(asked(content, ShopCatalogs(hosts=["shop.example"]).fetch))

    assert plain(ours, said := values(theirs)) == said
    assert unknown_fields(ours) == unknown_fields(theirs)
    assert [(each.catalog, each.display_name) for each in listed.catalogs] == [
        (each["catalog"], each["catalog_display_name"]) for each in said["catalogs"]
    ]
    unusable = [each for each in listed.catalogs if each.computed_at is None]
    assert len(listed.warnings) == len(unusable)


@published
@given(bodies(answers(octogen.MeResponse) | answers(octogen.MeResponse, lax=True)))
def test_the_account_of_a_key(content: bytes) -> None:
    theirs = octogen.MeResponse.model_validate_json(content)

    ours = asyncio.run(asked(content, lambda client: client.get_me()))

    assert plain(ours, said := values(theirs)) == said
    assert unknown_fields(ours) == unknown_fields(theirs)


@published
@given(bodies(answers(octogen.HTTPValidationError)))
def test_the_reasons_of_a_refusal(content: bytes) -> None:
    theirs = octogen.HTTPValidationError.model_validate_json(content)

    with pytest.raises(OctogenValidationError) as refused:
        asyncio.run(asked(content, lambda client: client.get_me(), 422))

    error = refused.value
    assert error.detail == json.loads(content).get("detail")
    message = str(error)
    assert message.startswith("The account of the API key failed: 422 ")
    assert message.endswith(". Correct the field named above.")
    assert len(message) < 2_200
    for reason in (theirs.detail or ())[:5]:
        text = " ".join(reason.msg[:200].split())
        assert text in message or repr(text) in message
