"""A server that repeats the API key as it is cannot get it into an error, a log or a result."""

from __future__ import annotations

import json
import pickle
from typing import Any

import pytest

from octogen_dagster.errors import OctogenAPIError, OctogenError
from tests.api.clients import Transport, open_client
from tests.api.leaks import SECRET, assert_silent, failure, shown
from tests.api.servers import KEY, RawServer, Received, http, page

pytestmark = pytest.mark.usefixtures("silent_own_log")

OK = b"HTTP/1.1 200 OK\r\nconnection: close\r\n"
END = b"connection: close\r\ncontent-length: 2\r\n\r\n{}"


def head(line: str) -> bytes:
    """A response with one more header line."""
    return OK + line.encode("latin-1") + b"\r\ncontent-length: 2\r\n\r\n{}"


def body(content: bytes, status: int = 500, content_type: str = "application/json") -> bytes:
    return b"".join(http(status, content, content_type=content_type))


RESPONSES: dict[str, bytes] = {
    "reason phrase": f"HTTP/1.1 500 {KEY}\r\n".encode() + END,
    "header value": head(f"x-echo: {KEY}"),
    "content-type": head(f"content-type: text/{KEY}; charset={KEY}"),
    "request id": head(f"x-request-id: {KEY}"),
    "retry-after": head(f"retry-after: {KEY}"),
    "redirect": f"HTTP/1.1 307 x\r\nlocation: https://{KEY}.example/\r\n".encode() + END,
    "detail": body(json.dumps({"detail": KEY}).encode()),
    "refused field": body(json.dumps({"detail": [{"loc": [KEY], "msg": KEY}]}).encode(), 422),
    "web page": body(f"<h1>{KEY}".encode(), 200, "text/html"),
    "page of a wrong shape": body(json.dumps({"items": KEY}).encode(), 200),
    "product of a wrong shape": body(
        json.dumps({"items": [{"uuid": KEY, "productUrl": [KEY]}]}).encode(), 200
    ),
    "text of a product": body(json.dumps(page([KEY], next_cursor=KEY)).encode(), 200),
}


@pytest.mark.parametrize("place", RESPONSES)
async def test_the_key_is_masked_wherever_it_is_sent(transport: Transport, place: str) -> None:
    with RawServer(lambda _: [RESPONSES[place]]) as server:
        async with open_client(server, transport) as client:
            try:
                found = await client.search_products()
            except OctogenError as error:
                assert_silent(error)
            else:
                assert SECRET not in shown(found)
                assert SECRET not in found.model_dump_json()
                assert SECRET.encode() not in pickle.dumps(found)


@pytest.mark.parametrize("status", [401, 422, 500])
@pytest.mark.parametrize("as_json", [True, False])
async def test_an_error_shows_where_the_key_was(
    transport: Transport, status: int, as_json: bool
) -> None:
    def respond(request: Received) -> list[bytes]:
        sent = request.headers["authorization"]
        body: Any = {"detail": f"refused {sent}"} if as_json else f"<h1>{sent}</h1>"
        return http(status, body, x_request_id=sent, x_echo=sent, retry_after=sent)

    with RawServer(respond) as server:
        error = await failure(server, transport)
    assert isinstance(error, OctogenAPIError)
    assert "Bearer [api key]" in str(error)
    assert error.response.headers["x-echo"] == error.request_id == "Bearer [api key]"
    assert_silent(error)


async def test_the_rest_of_a_page_is_kept(transport: Transport) -> None:
    def respond(request: Received) -> list[bytes]:
        return http(200, page(["a"]) | {"sentBy": request.headers["authorization"]})

    with RawServer(respond) as server:
        async with open_client(server, transport) as client:
            found = await client.search_products()
    assert found.model_extra == {"sentBy": "Bearer [api key]"}
