"""Every kind of bad response raises its error and never becomes an empty result."""

from __future__ import annotations

import pickle
from typing import Any

import pytest

from octogen_dagster.errors import (
    OctogenAPIError,
    OctogenAuthenticationError,
    OctogenForbiddenError,
    OctogenInsufficientCreditError,
    OctogenNotFoundError,
    OctogenRateLimitError,
    OctogenResponseError,
    OctogenServerError,
    OctogenValidationError,
)
from octogen_dagster.sandbox.faults import Fault
from octogen_dagster.sandbox.server import Sandbox
from tests.api.clients import QUICK, Transport, open_client
from tests.api.servers import RawServer, http

CREDIT = {"code": "insufficient_credit", "top_up_url": "https://octogen.example/top-up"}
REFUSAL = [{"loc": ["body"], "msg": "Input should be valid", "type": "value_error"}]
SHOP_URL = "https://shop.example/1"
OPERATIONS = {
    "The list of catalogs": lambda client, url: client.list_catalogs(),
    f"The product at {SHOP_URL}": lambda client, url: client.lookup_product(url),
    "The search of all catalogs": lambda client, url: client.search_products(),
    "Catalog 'strada'": lambda client, url: client.search_products(catalog="strada"),
}
OPERATION_IDS = ["catalogs", "lookup", "all", "catalog"]


class TestStatus:
    @pytest.mark.parametrize(
        ("status", "kind", "detail", "says", "advice"),
        [
            (400, OctogenAPIError, "Bad Request", "400 Bad Request", "See the detail"),
            (401, OctogenAuthenticationError, "Invalid API key", "401 Invalid", "OCTO_API_KEY"),
            (402, OctogenInsufficientCreditError, CREDIT, "402 insufficient", CREDIT["top_up_url"]),
            (403, OctogenForbiddenError, "api_key_forbidden", "403 api_key", "ask Octogen"),
            (404, OctogenNotFoundError, "product_not_found", "404 product", "No catalog has"),
            (422, OctogenValidationError, REFUSAL, "422 request: Input", "Correct the field"),
            (429, OctogenRateLimitError, "rate_limit_exceeded", "429 rate_", "run fewer reads"),
            (500, OctogenServerError, "Internal Server Error", "500 Internal", "try again later"),
            (503, OctogenServerError, "Service Unavailable", "503 Service", "try again later"),
        ],
    )
    async def test_the_error_has_the_reason_the_advice_and_the_headers(
        self,
        sandbox: Sandbox,
        transport: Transport,
        status: int,
        kind: type[OctogenAPIError],
        detail: Any,
        says: str,
        advice: str,
    ) -> None:
        sandbox.inject(Fault("status", status, retry_after=3))
        async with open_client(sandbox, transport) as client:
            with pytest.raises(OctogenAPIError) as caught:
                await client.search_products(catalog="strada")
        error = caught.value
        assert type(error) is kind
        assert (error.status_code, error.detail, error.retry_after) == (status, detail, 3.0)
        assert error.request_id == sandbox.requests[-1].request_id
        assert error.response.json() == {"detail": detail}
        text = str(error)
        assert text.startswith(f"Catalog 'strada' failed: {says}")
        assert f", request {error.request_id}. " in text
        assert advice in text
        copy = pickle.loads(pickle.dumps(error))
        assert (type(copy), str(copy), copy.detail) == (kind, text, detail)
        assert (copy.request_id, copy.retry_after) == (error.request_id, 3.0)


class TestUnusableBody:
    @pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATION_IDS)
    @pytest.mark.parametrize("fault", ["html", "truncate"])
    async def test_a_web_page_or_a_truncated_document_is_an_error(
        self, sandbox: Sandbox, transport: Transport, operation: Any, fault: Any
    ) -> None:
        async with open_client(sandbox, transport, retry=QUICK) as client:
            (product,) = (await client.search_products(limit=1)).items
            await client.lookup_product(product.product_url)  # it learns the generation
            sandbox.inject(Fault(fault))
            requests = len(sandbox.requests)
            with pytest.raises(OctogenResponseError, match="a body that is not JSON") as caught:
                await operation(client, product.product_url)
        assert caught.value.status_code == 200
        assert caught.value.request_id == sandbox.requests[-1].request_id
        assert len(sandbox.requests) == requests + 1, "it is not retried"
        assert ("text/html" if fault == "html" else "application/json") in str(caught.value)

    async def test_the_error_of_a_bulk_read_names_the_page(self, sandbox: Sandbox) -> None:
        sandbox.inject(Fault("wrong_type", page=3))
        async with open_client(sandbox) as client:
            with pytest.raises(
                OctogenResponseError, match=r"^Catalog 'strada', page 3, was answered"
            ):
                _ = [item async for item in client.iter_products(catalog="strada", limit=10)]

    @pytest.mark.parametrize("body", [b"", b"null", [], {}, {"items": {}}, {"detail": "x"}])
    @pytest.mark.parametrize("status", [200, 201])
    async def test_another_shape_is_not_an_empty_page(self, body: Any, status: int) -> None:
        with RawServer(lambda _: http(status, body)) as server:
            async with open_client(server) as client:
                with pytest.raises(OctogenResponseError) as caught:
                    await client.search_products()
                with pytest.raises(OctogenResponseError):
                    _ = [item async for item in client.iter_products()]
        assert caught.value.status_code == status
