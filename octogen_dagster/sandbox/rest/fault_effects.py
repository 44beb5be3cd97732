"""What a request that is hit by a fault gets instead of its answer, or what is done to it.

Latency, cut and truncate act on the connection and the bytes: they are in `app`.
"""

import math
import time
from http.client import responses
from typing import Any

from starlette.responses import HTMLResponse, Response

from octogen_dagster.sandbox.faults import Fault
from octogen_dagster.sandbox.rest.operations import ApiError
from octogen_dagster.sandbox.rest.views import Json

_REFILL_SECONDS = 60
_ERROR_DETAILS: dict[int, Any] = {
    401: "Invalid API key",
    402: {"code": "insufficient_credit", "top_up_url": "https://octogen.example/top-up"},
    403: "api_key_forbidden",
    404: "product_not_found",
    422: [{"loc": ["body"], "msg": "Input should be valid", "type": "value_error"}],
    429: "rate_limit_exceeded",
}
_WEB_PAGE = "<!doctype html><title>Just a moment...</title><h1>Checking your browser</h1>"


def made_up_answer(fault: Fault) -> Response | None:
    """The answer that a fault puts in the place of the real one, if it does.

    Raises:
        ApiError: That answer is an error.
    """
    match fault.kind:
        case "status":
            raise _error(fault)
        case "redirect":
            return Response(status_code=307, headers={"Location": str(fault.value)})
        case "html":
            return HTMLResponse(_WEB_PAGE)
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
    return ApiError(status, _ERROR_DETAILS.get(status, responses.get(status, "Error")), headers)


def spoil(answer: Any, fault: Fault, body: Json) -> None:
    """Change the answer of an operation in place as `fault` says.

    Args:
        body: The request that is answered.
    """
    match fault.kind:
        case "loop_cursor":
            answer["nextCursor"] = body["cursor"]
        case "unknown_fields":
            _add_unknown_fields(answer)
        case "wrong_type" if products := _products(answer):
            products[len(products) // 2]["currentPrice"] = "not a number"
        case "price" if products := _products(answer):
            products[len(products) // 2]["currentPrice"] = fault.value


def _add_unknown_fields(answer: Any) -> None:
    objects = answer if isinstance(answer, list) else [answer]
    products = _products(answer)
    brands = [product["brand"] for product in products if product["brand"] is not None]
    for thing in (*objects, *products, *brands):
        thing["addedWithoutNotice"] = {"by": "sandbox"}


def _products(answer: Any) -> list[Json]:
    """The products in the answer of a search or a lookup."""
    if "items" in answer:
        items: list[Json] = answer["items"]
        return items
    return [answer["product"]] if "product" in answer else []
