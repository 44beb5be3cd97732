"""Requests of the client, judged by the models of Octogen's published SDK."""

from __future__ import annotations

from octogen_ai_sdk.request_context import (
    MAX_CONTEXT_HEADER_BYTES,
    REQUEST_CONTEXT_HEADER,
    RequestContext,
)

from tests.api.clients import Transport, open_client
from tests.api.servers import RawServer, http, page


async def test_each_request_says_that_no_shopper_waits_for_it(transport: Transport) -> None:
    with RawServer(lambda _: http(200, page(["a"]))) as server:
        async with open_client(server, transport) as client:
            await client.search_products()
            await client.search_products(catalog="acme")
    for request in server.received:
        header = request.headers[REQUEST_CONTEXT_HEADER.lower()]
        assert header.isascii()
        assert len(header) <= MAX_CONTEXT_HEADER_BYTES
        assert RequestContext.model_validate_json(header) == RequestContext(
            trigger="background", application="octogen-dagster"
        )
