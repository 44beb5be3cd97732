"""A redirect is never followed, so that the key stays with the configured host."""

from __future__ import annotations

import pickle

import httpx
import pytest

from octogen_dagster.api.client import OctogenClient
from octogen_dagster.errors import OctogenAPIError
from octogen_dagster.sandbox.faults import Fault
from octogen_dagster.sandbox.server import Sandbox
from tests.api.clients import ONCE, QUICK, Transport, open_client
from tests.api.leaks import leaks
from tests.api.servers import KEY, RawServer, http, page


async def test_to_another_server_which_gets_nothing(sandbox: Sandbox, transport: Transport) -> None:
    with RawServer(lambda _: http(200, page(["stolen"]))) as elsewhere:
        sandbox.inject(Fault("redirect", f"{elsewhere.base_url}/products/search"))
        async with open_client(sandbox, transport, retry=QUICK) as client:
            with pytest.raises(OctogenAPIError) as caught:
                await client.search_products(catalog="strada")
        assert elsewhere.received == []
    assert type(caught.value) is OctogenAPIError
    assert caught.value.status_code == 307
    assert "It redirects to 127.0.0.1, and redirects are not followed" in str(caught.value)
    assert len(sandbox.requests) == 1
    assert leaks(caught.value, KEY) == []


async def test_to_the_same_server(sandbox: Sandbox, transport: Transport) -> None:
    sandbox.inject(Fault("redirect", f"{sandbox.base_url}/products/search", times=1))
    async with open_client(sandbox, transport, retry=QUICK) as client:
        with pytest.raises(OctogenAPIError) as caught:
            await client.search_products(catalog="strada")
    assert [request.status for request in sandbox.requests] == [307]
    assert KEY.encode() not in pickle.dumps(caught.value)
    assert leaks(caught.value, KEY) == []


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_each_kind_of_it(transport: Transport, status: int) -> None:
    with RawServer(lambda _: http(200, [])) as elsewhere:
        location = f"{elsewhere.base_url}/catalogs"
        with RawServer(lambda _: http(status, b"", location=location)) as server:
            async with open_client(server, transport) as client:
                with pytest.raises(OctogenAPIError) as caught:
                    await client.list_catalogs()
        assert caught.value.status_code == status
        assert elsewhere.received == []


async def test_a_given_client_that_follows_redirects_does_not_either(sandbox: Sandbox) -> None:
    with RawServer(lambda _: http(200, page(["stolen"]))) as elsewhere:
        sandbox.inject(Fault("redirect", f"{elsewhere.base_url}/products/search"))
        async with httpx.AsyncClient(follow_redirects=True) as http_client:
            client = OctogenClient(
                api_key=KEY, base_url=sandbox.base_url, http_client=http_client, retry=ONCE
            )
            with pytest.raises(OctogenAPIError, match="redirects are not followed"):
                await client.search_products()
        assert elsewhere.received == []
