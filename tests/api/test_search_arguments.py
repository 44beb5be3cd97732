from __future__ import annotations

import inspect
from typing import Any

import pytest
from pydantic import ValidationError

from octogen_dagster.api.client import OctogenClient
from octogen_dagster.api.facets import Facet
from octogen_dagster.api.search_arguments import (
    CurrentArguments,
    PageArguments,
    SearchArguments,
    search_request,
)
from octogen_dagster.api.search_request import SearchRequest


def test_the_arguments_of_a_page_are_those_of_the_client_s_search() -> None:
    parameters = inspect.signature(OctogenClient.search_products).parameters
    named = parameters.keys() - {"self", "current"}
    assert PageArguments.__annotations__.keys() == named | CurrentArguments.__annotations__.keys()
    assert PageArguments.__annotations__.keys() == SearchRequest.model_fields.keys()


def test_the_arguments_of_a_search_are_those_of_a_page_without_the_cursor() -> None:
    assert SearchArguments.__annotations__.keys() == PageArguments.__annotations__.keys() - {
        "cursor"
    }


def test_every_argument_reaches_the_request() -> None:
    request = search_request(
        catalog="acme",
        q="dress",
        facets=[{"name": "fit", "values": ["slim"]}],
        price_min=1,
        price_max=2,
        cursor="c",
        limit=7,
        understand=True,
        exclude_facets=[{"name": "pattern", "values": ["floral"]}],
        omit_generated_facets=["color"],
        fallback_category=["apparel & accessories"],
        brand_quality_min=2,
        brand_quality_max=5,
        similar_to_brands=["Acme"],
        relax=True,
    )
    assert request == SearchRequest(
        catalog="acme",
        q="dress",
        facets=[Facet(name="fit", values=["slim"])],
        price_min=1,
        price_max=2,
        cursor="c",
        limit=7,
        understand=True,
        exclude_facets=[Facet(name="pattern", values=["floral"])],
        omit_generated_facets=["color"],
        fallback_category=["apparel & accessories"],
        brand_quality_min=2,
        brand_quality_max=5,
        similar_to_brands=["Acme"],
        relax=True,
    )


def test_none_leaves_the_default() -> None:
    assert search_request(catalog=None, facets=None, cursor=None) == SearchRequest()


@pytest.mark.parametrize("arguments", [{"limit": 0}, {"catalogs": ["acme"]}, {"price_min": -1}])
def test_an_argument_that_is_unknown_or_out_of_its_range_is_named(
    arguments: dict[str, Any],
) -> None:
    (name,) = arguments
    with pytest.raises(ValidationError, match=name):
        search_request(**arguments)


def test_an_unknown_argument_is_refused_also_without_a_value() -> None:
    misspelled: Any = {"catalogue": None}
    with pytest.raises(ValueError, match="catalogue"):
        search_request(**misspelled)
