"""A redirect is never followed, so that the key stays with the configured host."""

from __future__ import annotations

import httpx
import pytest

from octogen_dagster import OctogenAPIError, OctogenClient
from tests.api.clients import QUICK, Transport, open_client
from tests.api.leaks import assert_silent
from tests.api.servers import KEY, RawServer, http, page


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_another_server_receives_nothing(transport: Transport, status: int) -> None:
    with RawServer(lambda _: http(200, page(["stolen"]))) as elsewhere:
        location = f"{elsewhere.base_url}/products/search"
        with RawServer(lambda _: http(status, b"", location=location)) as server:
            async with open_client(server, transport, retry=QUICK) as client:
                with pytest.raises(OctogenAPIError) as caught:
                    await client.search_products(catalog="strada")
        assert elsewhere.received == []
    assert (type(caught.value), caught.value.status_code) == (OctogenAPIError, status)
    assert "It redirects to 127.0.0.1, and redirects are not followed" in str(caught.value)
    assert len(server.received) == 1
    assert_silent(caught.value)


async def test_a_given_client_that_follows_redirects_does_not_follow_this_one() -> None:
    with RawServer(lambda _: http(200, page(["stolen"]))) as elsewhere:
        location = f"{elsewhere.base_url}/products/search"
        with RawServer(lambda _: http(307, b"", location=location)) as server:
            async with httpx.AsyncClient(follow_redirects=True) as http_client:
                client = OctogenClient(
                    api_key=KEY, base_url=server.base_url, http_client=http_client
                )
                with pytest.raises(OctogenAPIError, match="redirects are not followed"):
                    await client.search_products()
        assert elsewhere.received == []
