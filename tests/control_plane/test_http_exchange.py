from __future__ import annotations

import httpx2
import pytest
from pydantic import SecretStr

from octogen_dagster.control_plane.http_exchange import HttpExchange


@pytest.fixture
def exchange() -> HttpExchange:
    exchange = HttpExchange()
    exchange.begin(SecretStr("access"))
    return exchange


def response(method: str, status: int, **headers: str) -> httpx2.Response:
    request = httpx2.Request(method, "http://127.0.0.1/")
    return httpx2.Response(
        status,
        request=request,
        headers={name.replace("_", "-"): value for name, value in headers.items()},
    )


async def test_requests_carry_the_token(exchange: HttpExchange) -> None:
    request = httpx2.Request("POST", "http://127.0.0.1/")
    await exchange.authorize(request)
    assert request.headers["authorization"] == "Bearer access"


async def test_the_last_response_to_a_post_is_recorded(exchange: HttpExchange) -> None:
    await exchange.record(response("POST", 503, retry_after="7"))
    await exchange.record(response("GET", 405))
    assert (exchange.status, exchange.retry_after) == (503, 7.0)
    await exchange.record(response("POST", 401))
    assert (exchange.status, exchange.retry_after) == (401, None)


async def test_a_new_call_forgets_the_previous_response(exchange: HttpExchange) -> None:
    await exchange.record(response("POST", 503, retry_after="7"))
    exchange.begin(SecretStr("next"))
    assert (exchange.status, exchange.retry_after) == (0, None)
    assert exchange.masked("access next") == "access [access token]"
