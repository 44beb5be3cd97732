"""The pages of a search, from sandboxes with faults and from servers in memory."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import count
from typing import Any

import httpx
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from octogen_dagster.api.client import OctogenClient
from octogen_dagster.api.http import Response
from octogen_dagster.api.models import MerchantProductListPage
from octogen_dagster.errors import OctogenPagingError, OctogenServerError
from octogen_dagster.sandbox.faults import Fault
from octogen_dagster.sandbox.server import Sandbox
from tests.api.clients import ONCE, QUICK, open_client
from tests.api.servers import KEY, RawServer, Received, http, page
from tests.unit.test_paging import ModelServer, products_of, walks


async def uuids_of(client: OctogenClient, **search: Any) -> list[str]:
    return [item.uuid async for item in client.iter_products(**search)]


class TestSandbox:
    @pytest.mark.parametrize("limit", [1, 7, 30, 100])
    async def test_every_product_comes_once_whatever_the_page_size(
        self, either: Sandbox, limit: int
    ) -> None:
        async with open_client(either) as client:
            uuids = await uuids_of(client, catalog="strada", limit=limit)
        assert len(set(uuids)) == len(uuids) == 30
        searches = [request for request in either.requests if request.status == 200]
        assert [request.page for request in searches] == list(range(1, -(-30 // limit) + 1))

    async def test_every_page_is_requested_with_the_same_arguments(self, sandbox: Sandbox) -> None:
        search: dict[str, Any] = {
            "catalog": "northpeak",
            "facets": [{"name": "gender", "values": ["female", "male"]}],
            "price_min": 1,
            "price_max": 5000,
            "limit": 25,
        }
        async with open_client(sandbox) as client:
            assert await uuids_of(client, **search)
        bodies = [dict(request.body or {}) for request in sandbox.requests]
        cursors = [body.pop("cursor", None) for body in bodies]
        assert len(bodies) > 1
        assert all(body == search for body in bodies)
        assert cursors[0] is None
        assert len(set(cursors)) == len(cursors)

    async def test_the_products_of_page_1_come_once_though_the_service_repeats_them(
        self, either: Sandbox
    ) -> None:
        sent: list[str] = []
        async with open_client(either) as client:
            uuids = await uuids_of(client, q="jacket", limit=3)
            cursor: str | None = None
            while cursor or not sent:
                found = await client.search_products(q="jacket", limit=3, cursor=cursor)
                sent, cursor = sent + found.uuids, found.next_cursor
        assert len(sent) > len(set(sent)), "the sandbox repeats products"
        assert len(uuids) == len(set(uuids))
        assert set(uuids) == set(sent)

    async def test_a_search_without_results_is_one_empty_page(self, either: Sandbox) -> None:
        async with open_client(either) as client:
            pages = [found async for found in client.iter_pages(q="zeppelin")]
        assert [found.items for found in pages] == [[]]

    async def test_an_abandoned_read_sends_no_more_requests(self, sandbox: Sandbox) -> None:
        async with open_client(sandbox) as client:
            async for _ in client.iter_products(limit=10):
                break
        assert len(sandbox.requests) == 1


def read(response: Response, _: str) -> MerchantProductListPage:
    return MerchantProductListPage.model_validate_json(response.content)


class TestFaults:
    async def test_a_looping_cursor_is_an_error_that_names_the_page(self, either: Sandbox) -> None:
        either.inject(Fault("loop_cursor", page=3))
        async with open_client(either) as client:
            with pytest.raises(OctogenPagingError) as caught:
                await uuids_of(client, catalog="northpeak", limit=10)
        assert str(caught.value).startswith(
            "Catalog 'northpeak': page 3 has the next cursor that page 2 had"
        )
        assert either.requests[-1].page == 3

    async def test_page_1_for_a_later_cursor_is_an_error_at_once(self, either: Sandbox) -> None:
        either.inject(Fault("restart_cursor", page=3))
        async with open_client(either) as client:
            with pytest.raises(OctogenPagingError, match="answered page 3 with page 1 again"):
                await uuids_of(client, catalog="northpeak", limit=25)
        assert len([request for request in either.requests if request.status == 200]) == 3

    async def test_a_page_that_fails_in_the_middle_ends_the_walk_with_its_error(
        self, sandbox: Sandbox
    ) -> None:
        sandbox.inject(Fault("status", 503, page=3))
        async with open_client(sandbox, retry=QUICK) as client:
            pages = client.iter_pages(limit=10)
            assert [len((await anext(pages)).items) for _ in range(2)] == [10, 10]
            with pytest.raises(OctogenServerError):
                await anext(pages)

    async def test_pages_without_an_end_are_an_error(self) -> None:
        serial = count()

        def respond(_: Received) -> list[bytes]:
            number = next(serial)
            body = page(["b", "a"][: 1 if number else 2], next_cursor=f"c{number}")
            return http(200, body, connection="keep-alive")

        with RawServer(respond, keep_alive=True) as server:
            async with open_client(server) as client:
                with pytest.raises(OctogenPagingError) as caught:
                    await uuids_of(client)
        assert str(caught.value).startswith(
            "The search of all catalogs: 12 pages in a row, up to page 13, brought no new product"
        )
        assert len(server.received) == 13


def in_memory(server: ModelServer) -> OctogenClient:
    """A client whose pages come from a model server."""

    def respond(request: httpx.Request) -> httpx.Response:
        uuids, next_cursor = server.read(json.loads(request.content).get("cursor"))
        return httpx.Response(200, json=page(uuids, next_cursor))

    http_client = httpx.AsyncClient(transport=httpx.MockTransport(respond))
    return OctogenClient(api_key=KEY, http_client=http_client, retry=ONCE)


class TestModelServers:
    @given(walks(), st.booleans())
    async def test_each_product_comes_once(
        self, pages: list[list[str]], fresh_cursors: bool
    ) -> None:
        assume(len(pages) < 2 or set(pages[0]) != set(pages[1]))
        server = ModelServer(pages, fresh_cursors=fresh_cursors)
        client = in_memory(server)
        assert await uuids_of(client) == products_of(pages)
        assert client.statistics.requests == server.asked

    @given(walks())
    async def test_pages_keep_their_order_and_lose_only_what_came_before(
        self, pages: list[list[str]]
    ) -> None:
        # A page 2 that is page 1, and most of it again, is how a restart looks.
        assume(len(pages) < 2 or set(pages[0]) != set(pages[1]))
        found = [page async for page in in_memory(ModelServer(pages)).iter_pages()]
        assert [part.uuids for part in found] == list(without_repeats(pages))


def without_repeats(pages: list[list[str]]) -> Iterator[list[str]]:
    seen: set[str] = set()
    for uuids in pages:
        yield [uuid for uuid in dict.fromkeys(uuids) if uuid not in seen]
        seen.update(uuids)
