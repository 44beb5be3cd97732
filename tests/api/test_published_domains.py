"""The published models say what a shop's coverage is."""

from __future__ import annotations

import json
from typing import Any

import pytest
from octogen_ai_sdk.generated.models import DomainCoverageResponse as Published

from octogen_dagster.api.catalog_states import catalogs_of_shop
from octogen_dagster.api.domain_coverage import DomainCoverageResponse
from octogen_dagster.api.http import Response
from octogen_dagster.api.responses import parsed
from tests.api.shops import catalog_of_shop, shop

VALUE = {"value": "dresses", "label": "Dresses", "count": 12, "new": 1}
FIELD = {
    "name": "product_type",
    "displayName": "Product type",
    "source": "a new one",
    "coverage": 1,
    "populated": 12,
    "distinct": 1,
    "truncated": False,
    "topValues": [VALUE],
}
PRICE = {
    "populated": 12,
    "median": 59.5,
    "below": 0,
    "above": 1,
    "buckets": [{"min": 0, "max": 10.5, "count": 11}],
}
CATALOG = {
    "catalog": "acme",
    "catalogDisplayName": "Acmé",
    "productCount": 12,
    "computedAt": "2026-11-25T10:00:00.123456789+02:00",
    "fields": [FIELD],
    "price": PRICE,
}


@pytest.mark.parametrize(
    "body",
    [
        {"host": "acme.example", "catalogs": []},
        {"host": "acme.example", "catalogs": [CATALOG]},
        {"host": "acme.example", "catalogs": [{**CATALOG, "price": None}], "new": {"x": [1]}},
        {
            "host": "acme.example",
            "catalogs": [{name: CATALOG[name] for name in CATALOG if name != "price"}],
        },
    ],
)
def test_what_the_published_model_accepts_is_read_as_it_says(body: dict[str, Any]) -> None:
    response = Response(200, content=json.dumps(body).encode())
    published = Published.model_validate_json(response.content)
    ours = parsed(DomainCoverageResponse, response, "Shop 'acme.example'")
    expected = published.model_dump(by_alias=True, mode="json", exclude_unset=True)
    assert ours.model_dump(by_alias=True, mode="json", exclude_unset=True) == expected
    listed = catalogs_of_shop(ours, "acme.example")
    assert [
        (state.catalog, state.display_name, state.product_count) for state in listed.catalogs
    ] == [
        (entry.catalog, entry.catalog_display_name, entry.product_count)
        for entry in published.catalogs
    ]
    assert all(state.computed_at for state in listed.catalogs)
    assert not listed.warnings


def test_a_number_of_products_that_no_column_can_hold_is_unknown() -> None:
    body = {"host": "acme.example", "catalogs": [{**CATALOG, "productCount": 2**63 + 5}]}
    Published.model_validate(body)
    ours = parsed(DomainCoverageResponse, Response(200, content=json.dumps(body).encode()), "Shop")
    (state,) = catalogs_of_shop(ours, "acme.example").catalogs
    assert (state.catalog, state.product_count) == ("acme", None)


def test_the_answers_of_the_shops_of_other_tests_are_what_the_published_model_accepts() -> None:
    answer = b"".join(shop("acme.example", catalog_of_shop("acme"), catalog_of_shop("outlet", 7)))
    published = Published.model_validate_json(answer.partition(b"\r\n\r\n")[2])
    assert [entry.product_count for entry in published.catalogs] == [3, 7]
