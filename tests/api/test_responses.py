"""The body of a successful answer: a model, or an error that names what is wrong in it."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from octogen_dagster.api.models import (
    MerchantCatalogSummary,
    MerchantProductListPage,
    MerchantProductUrlLookupResponse,
)
from octogen_dagster.api.responses import parsed
from octogen_dagster.errors import OctogenResponseError

GOOD: dict[str, Any] = {"uuid": "u-1", "productUrl": "https://shop.example/1"}


def answer(body: Any) -> httpx.Response:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    headers = {"content-type": "application/json", "x-request-id": "r-5"}
    return httpx.Response(200, content=content, headers=headers)


def complaint(model: Any, body: Any) -> str:
    with pytest.raises(OctogenResponseError) as caught:
        parsed(model, answer(body), "The answer")
    assert caught.value.request_id == "r-5"
    assert caught.value.status_code == 200
    text = str(caught.value)
    assert text.startswith("The answer was answered with 200 and ")
    assert text.endswith(
        "(application/json, request r-5). Check base_url, or report it to Octogen."
    )
    return text


def test_a_good_body_becomes_the_model() -> None:
    page = parsed(MerchantProductListPage, answer({"items": [GOOD], "nextCursor": "c"}), "It")
    assert page.uuids == ["u-1"]
    assert page.next_cursor == "c"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"<!doctype html>",
        b'{"items": [',
        b"\xff\xfe",
        b'{"items": []} and more',
        b"[" * 100_000,
        b"{'items': []}",
    ],
)
def test_a_body_that_is_not_json_is_said_so(content: bytes) -> None:
    assert "a body that is not JSON" in complaint(MerchantProductListPage, content)


@pytest.mark.parametrize("body", [None, [], "items", 5, {}, {"items": None}, {"items": {}}])
def test_another_document_is_no_empty_page(body: Any) -> None:
    complaint(MerchantProductListPage, body)


@pytest.mark.parametrize("body", [None, {}, {"catalogs": []}, "none", [{}], [None]])
def test_another_document_is_no_empty_list_of_catalogs(body: Any) -> None:
    complaint(list[MerchantCatalogSummary], body)


@pytest.mark.parametrize(
    ("change", "field", "value"),
    [
        ({"currentPrice": "a lot"}, "currentPrice", "'a lot'"),
        ({"rating": {"count": "many"}}, "rating.count", "'many'"),
        ({"rating": {"count": 2**63}}, "rating.count", str(2**63)),
        ({"brand": "Acme"}, "brand", "'Acme'"),
        ({"images": [{"width": 3}]}, "images.0.url", "width"),
        ({"updatedAt": "yesterday"}, "updatedAt", "'yesterday'"),
        ({"title": ["a"]}, "title", "a"),
        ({"productUrl": None}, "productUrl", "None"),
    ],
)
def test_the_product_and_the_field_are_named(
    change: dict[str, Any], field: str, value: str
) -> None:
    body = {"items": [GOOD, GOOD | {"uuid": "u-2"} | change]}
    text = complaint(MerchantProductListPage, body)
    assert f"a product 'u-2' (item 1) whose {field} is wrong: " in text
    assert value in text


@pytest.mark.parametrize(
    ("item", "named"),
    [
        ({"productUrl": "x"}, "a product at item 1 whose uuid is wrong"),
        ({"uuid": "", "productUrl": "x"}, "a product at item 1 whose uuid is wrong"),
        (None, "a product at item 1 that is wrong: input should be an object"),
        ({"uuid": "u-2"}, "a product 'u-2' (item 1) whose productUrl is wrong: field required"),
    ],
)
def test_a_product_without_a_uuid_is_named_by_its_place(item: Any, named: str) -> None:
    assert named in complaint(MerchantProductListPage, {"items": [GOOD, item]})


@pytest.mark.parametrize("price", ["NaN", "Infinity", "-Infinity", '"nan"'])
def test_a_price_that_is_no_number_is_refused(price: str) -> None:
    item = json.dumps(GOOD)[:-1] + f', "currentPrice": {price}}}'
    text = complaint(MerchantProductListPage, f'{{"items": [{item}]}}'.encode())
    assert "a product 'u-1' (item 0) whose currentPrice is wrong" in text


def test_what_else_is_odd_in_the_document_does_not_hide_the_product() -> None:
    deep = "[" * 100 + "NaN" + "]" * 100
    body = f'{{"added": {deep}, "items": [{{"uuid": "u-9", "productUrl": 5.5, "title": {{}}}}]}}'
    assert "a product 'u-9' (item 0)" in complaint(MerchantProductListPage, body.encode())


def test_a_long_value_is_cut() -> None:
    text = complaint(MerchantProductListPage, {"items": [GOOD | {"brand": "x" * 10_000}]})
    assert len(text) < 400


def test_a_field_outside_of_products_is_named_by_its_path() -> None:
    body = {"catalogKey": "a", "catalogDisplayName": "A", "product": GOOD | {"tags": "new"}}
    text = complaint(MerchantProductUrlLookupResponse, body)
    assert "a wrong product.tags: input should be a valid array, not 'new'" in text
    body_of_catalogs = [{"catalog": "a", "displayName": "A", "productCount": "lots"}]
    text = complaint(list[MerchantCatalogSummary], body_of_catalogs)
    assert "a wrong 0.productCount: " in text
