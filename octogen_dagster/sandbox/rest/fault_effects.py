"""The effects of faults on the responses of the REST API.

The faults that act on the connection or on the bytes of a response (latency, cut, truncate) take
effect in `app`.
"""

import math
import time
from http.client import responses
from typing import Any

from starlette.responses import Response

from octogen_dagster.sandbox.faults import Fault
from octogen_dagster.sandbox.http_effects import web_page
from octogen_dagster.sandbox.rest.account import TOP_UP_URL
from octogen_dagster.sandbox.rest.operations import ApiError
from octogen_dagster.sandbox.rest.views import Json

_REFILL_SECONDS = 60
_ERROR_DETAILS: dict[int, Any] = {
    401: "Invalid API key",
    402: {"code": "insufficient_credit", "top_up_url": TOP_UP_URL},
    403: "api_key_forbidden",
    404: "product_not_found",
    422: [{"loc": ["body"], "msg": "Input should be valid", "type": "value_error"}],
    429: "rate_limit_exceeded",
}


def replacement_response(fault: Fault) -> Response | None:
    """Return the response that `fault` sends in place of the real one; None if it sends none.

    Raises:
        ApiError: The fault is an error of the API.
    """
    match fault.kind:
        case "status":
            raise _error(fault)
        case "redirect":
            return Response(status_code=307, headers={"Location": str(fault.value)})
        case "html":
            return web_page()
        case _:
            return None


def _error(fault: Fault) -> ApiError:
    status = int(fault.value or 500)
    headers: dict[str, str] = {}
    retry_after = fault.retry_after
    if status == 429:
        retry_after = 1 if retry_after is None else retry_after
        headers["X-RateLimit-Remaining"] = "0"
        headers["X-RateLimit-Reset"] = str(math.ceil(time.time()) + _REFILL_SECONDS)
    if retry_after is not None:
        headers["Retry-After"] = str(retry_after)
    detail = fault.detail or _ERROR_DETAILS.get(status, responses.get(status, "Error"))
    return ApiError(status, detail, headers)


def alter_content(content: Any, fault: Fault, body: Json) -> None:
    """Change the result of an operation in place, as `fault` says.

    Args:
        content: The result, before it is encoded as JSON.
        fault: The fault that hit the request. Most kinds change nothing here.
        body: The JSON object that was sent.
    """
    match fault.kind:
        case "loop_cursor":
            content["nextCursor"] = body["cursor"]
        case "unknown_fields":
            add_unknown_fields(content)
        case "wrong_type" if products := _products(content):
            products[len(products) // 2]["currentPrice"] = "not a number"
        case "price" if products := _products(content):
            products[len(products) // 2]["currentPrice"] = fault.value


def add_unknown_fields(content: Any) -> None:
    """Add fields that no contract knows to a response, its products and their brands, in place."""
    objects = content if isinstance(content, list) else [content]
    products = _products(content)
    brands = [brand for product in products if (brand := product.get("brand")) is not None]
    for thing in (*objects, *products, *brands):
        thing["addedWithoutNotice"] = {"by": "sandbox"}


def _products(content: Any) -> list[Json]:
    """Return the products in the result of a search or a lookup."""
    if "items" in content:
        items: list[Json] = content["items"]
        return items
    return [content["product"]] if "product" in content else []
