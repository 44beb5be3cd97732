from __future__ import annotations

import json
from typing import Any

import pytest

from octogen_dagster.api.http import Request, Response
from octogen_dagster.api.models import (
    MerchantCatalogSummary,
    MerchantProductListPage,
    MerchantProductUrlLookupResponse,
)
from octogen_dagster.api.responses import error_from_response, parsed
from octogen_dagster.errors import (
    OctogenAPIError,
    OctogenNotFoundError,
    OctogenRateLimitError,
    OctogenResponseError,
    OctogenServerError,
    OctogenShopError,
    OctogenValidationError,
)

GOOD: dict[str, Any] = {"uuid": "u-1", "productUrl": "https://shop.example/1"}
SUBJECT = "Catalog 'acme'"


def success(body: Any) -> Response:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    headers = {"content-type": "application/json", "x-request-id": "r-5"}
    return Response(200, content=content, headers=headers)


def failure(status: int, detail: Any = None, **headers: str) -> Response:
    return Response(
        status,
        {name.replace("_", "-"): value for name, value in headers.items()},
        json.dumps({"detail": detail}).encode(),
        Request("POST", "https://api.octogen.ai/v1/products/search"),
    )


def message(status: int, content: bytes) -> str:
    return str(error_from_response(Response(status, content=content), SUBJECT))


def refused(model: Any, body: Any) -> str:
    """The message of the error that a body raises."""
    with pytest.raises(OctogenResponseError) as caught:
        parsed(model, success(body), "The response")
    assert caught.value.request_id == "r-5"
    assert caught.value.status_code == 200
    text = str(caught.value)
    assert text.startswith("The response failed: the service responded with 200 and ")
    assert text.endswith(
        "(application/json, request r-5). Check base_url, or report this to Octogen."
    )
    return text


class TestParsed:
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
    def test_a_body_that_is_not_json_is_reported_as_such(self, content: bytes) -> None:
        assert "a body that is not valid JSON" in refused(MerchantProductListPage, content)

    def test_a_field_outside_of_a_product_is_named_by_its_path(self) -> None:
        body = {"catalogKey": "a", "catalogDisplayName": "A", "product": GOOD | {"tags": "new"}}
        text = refused(MerchantProductUrlLookupResponse, body)
        assert "an invalid field product.tags: input should be a valid array, not 'new'" in text
        body_of_catalogs = [{"catalog": "a", "displayName": "A", "productCount": "lots"}]
        text = refused(list[MerchantCatalogSummary], body_of_catalogs)
        assert "an invalid field 0.productCount: " in text


class TestErrorOfAStatus:
    @pytest.mark.parametrize(
        ("status", "code", "kind", "advice"),
        [
            (404, "product_not_found", OctogenNotFoundError, "No catalog has a product at this"),
            (422, "invalid_product_url", OctogenValidationError, "Pass the full URL"),
            (422, "unsafe_url", OctogenValidationError, "looks up public URLs only"),
            (429, "product_lookup_rate_limited", OctogenRateLimitError, "lookup rate limit"),
            (502, "product_lookup_upstream_failed", OctogenShopError, "shop caused this error"),
            (
                503,
                "product_lookup_fallback_unavailable",
                OctogenShopError,
                "shop caused this error",
            ),
            (504, "product_lookup_timed_out", OctogenShopError, "shop caused this error"),
            (504, "product_lookup_of_tomorrow", OctogenShopError, "shop caused this error"),
            (504, "gateway_timeout", OctogenServerError, "The service failed"),
            (500, "product_lookup_crashed", OctogenServerError, "The service failed"),
        ],
    )
    def test_the_reasons_of_a_lookup_are_understood(
        self, status: int, code: str, kind: type[OctogenAPIError], advice: str
    ) -> None:
        for detail in (code, {"code": code}):
            error = error_from_response(failure(status, detail), SUBJECT)
            assert type(error) is kind
            assert str(error).startswith(f"{SUBJECT} failed: {status} {code}. ")
            assert advice in str(error)

    @pytest.mark.parametrize(
        "detail",
        [
            "a\nb\x1b[31m\u202e\x9b",
            ["a\nb\x1b[31m\u202e\x9b"],
            [{"loc": ["a\nb\x1b[31m\u202e\x9b"], "msg": "x"}],
            [{"loc": [], "msg": "a\nb\x1b[31m\u202e\x9b"}],
            {"code": "a\nb\x1b[31m\u202e\x9b"},
            {"message": ["a\nb\x1b[31m\u202e\x9b"]},
        ],
    )
    def test_control_characters_are_escaped_in_the_message(self, detail: Any) -> None:
        text = str(error_from_response(failure(422, detail), SUBJECT))
        assert text.isprintable()
        assert "\\x1b[31m" in text
