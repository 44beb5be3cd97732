from __future__ import annotations

import inspect
import pickle
from typing import Any

import httpx
import pytest
from pydantic import ValidationError

from octogen_dagster.api.client import OctogenClient
from octogen_dagster.api.credentials import ApiKey
from octogen_dagster.api.search import Facet
from octogen_dagster.errors import (
    MissingAPIKeyError,
    OctogenNotFoundError,
    OctogenTimeoutError,
)
from octogen_dagster.sandbox.server import Sandbox
from tests.api.clients import ONCE, Transport, open_client
from tests.api.servers import KEY, RawServer, hanging
from tests.api.shops import catalog_of_shop, shop, shops

FAR_AWAY = "https://api.octogen.ai/v1"


def defaults(function: Any) -> dict[str, Any]:
    """The keyword-only arguments that a function names, each with its default."""
    parameters = list(inspect.signature(function).parameters.values())[1:]
    named = [each for each in parameters if each.kind is not each.VAR_KEYWORD]
    assert all(parameter.kind is parameter.KEYWORD_ONLY for parameter in named)
    return {parameter.name: parameter.default for parameter in named}


class TestConstruction:
    def test_the_arguments_and_defaults_are_the_seed_s(self) -> None:
        arguments = list(defaults(OctogenClient.__init__).items())
        assert arguments[:4] == [
            ("api_key", None),
            ("base_url", "https://api.octogen.ai/v1"),
            ("timeout", 30.0),
            ("http_client", None),
        ]
        assert all(default is None for _, default in arguments[4:])

    def test_the_named_arguments_of_a_search_have_those_of_the_seed(self) -> None:
        filters = dict.fromkeys(("catalog", "q", "facets", "price_min", "price_max"))
        shown = defaults(OctogenClient.search_products)
        assert shown.items() >= (filters | {"cursor": None, "limit": 50}).items()

    @pytest.mark.parametrize("name", ["OCTO_API_KEY", "OCTOGEN_PLATFORM_API_KEY"])
    async def test_the_key_comes_from_the_environment(
        self, monkeypatch: pytest.MonkeyPatch, sandbox: Sandbox, name: str
    ) -> None:
        monkeypatch.setenv(name, sandbox.api_key)
        async with OctogenClient(base_url=sandbox.base_url) as client:
            assert len(await client.list_catalogs()) == 2

    def test_a_missing_key_is_an_error_before_any_request(self, sandbox: Sandbox) -> None:
        with pytest.raises(MissingAPIKeyError, match=r"OCTO_API_KEY.*octogen-dagster sandbox"):
            OctogenClient(base_url=sandbox.base_url)
        assert sandbox.requests == []

    def test_a_base_url_that_would_expose_the_key_is_refused(self) -> None:
        with pytest.raises(ValueError, match="plain http"):
            OctogenClient(api_key=KEY, base_url="http://api.octogen.ai/v1")

    def test_its_repr_has_the_base_url_and_it_cannot_be_pickled(self) -> None:
        client = OctogenClient(api_key=KEY)
        assert repr(client) == f"OctogenClient(base_url='{FAR_AWAY}')"
        with pytest.raises(TypeError, match="cannot be pickled"):
            pickle.dumps(client)


class TestTimeout:
    @pytest.mark.parametrize(
        ("given", "named", "used"),
        [(0.05, None, "0.05 s"), (60, 0.06, "0.06 s"), (None, httpx.Timeout(0.07), "0.07 s")],
    )
    async def test_the_given_client_s_timeout_counts_unless_another_is_named(
        self, given: float | None, named: float | httpx.Timeout | None, used: str
    ) -> None:
        settings: dict[str, Any] = {} if named is None else {"timeout": named}
        with RawServer(lambda _: hanging(lambda: server)) as server:
            async with httpx.AsyncClient(timeout=given) as http_client:
                client = OctogenClient(
                    api_key=ApiKey(KEY),
                    base_url=server.base_url,
                    http_client=http_client if given else None,
                    retry=ONCE,
                    **settings,
                )
                async with client:
                    with pytest.raises(OctogenTimeoutError, match=f"timeout {used},"):
                        await client.list_catalogs()


class TestCatalogs:
    async def test_the_error_of_the_current_generation_says_what_to_do(
        self, current: Sandbox
    ) -> None:
        async with open_client(current) as client:
            with pytest.raises(OctogenNotFoundError) as caught:
                await client.list_catalog_states()
            with pytest.raises(OctogenNotFoundError) as caught:
                await client.list_catalogs()
        assert current.base_url in str(caught.value)
        assert "(404)" in str(caught.value)
        assert "OctogenResource(catalogs=ShopCatalogs(hosts=[...]))" in str(caught.value)
        assert "OctogenResource(catalogs=NamedCatalogs(keys=[...]))" in str(caught.value)
        assert caught.value.request_id == current.requests[-1].request_id


class TestDomains:
    async def test_a_shop_says_which_catalogs_serve_it(self, transport: Transport) -> None:
        entry = catalog_of_shop("acme", 7, computedAt="soon")
        with shops({"bücher.example/x": shop("bücher.example", entry)}) as server:
            async with open_client(server, transport) as client:
                coverage = await client.get_domain(" bücher.example/x ")
        assert server.received[0].target == "/v1/domains/b%C3%BCcher.example%2Fx"
        assert coverage.host == "bücher.example"
        assert [(each.catalog, each.product_count) for each in coverage.catalogs] == [("acme", 7)]
        assert coverage.catalogs[0].computed_at == "soon"


class TestLookup:
    @pytest.mark.parametrize("url", ["", "  "])
    async def test_an_empty_url_is_refused_before_any_request(
        self, sandbox: Sandbox, url: str
    ) -> None:
        async with open_client(sandbox) as client:
            with pytest.raises(ValueError, match="url must not be empty"):
                await client.lookup_product(url)
        assert sandbox.requests == []


class TestSearch:
    async def test_without_arguments_it_searches_all_products(
        self, either: Sandbox, transport: Transport
    ) -> None:
        async with open_client(either, transport) as client:
            found = await client.search_products()
        assert len(found.items) == 50
        assert found.next_cursor
        assert either.requests[-1].body == {"limit": 50}

    @pytest.mark.parametrize(
        ("arguments", "named"),
        [
            ({"limit": 0}, "limit"),
            ({"limit": 101}, "limit"),
            ({"price_min": 20, "price_max": 10}, "price_min"),
            ({"catalog": ""}, "catalog"),
            ({"catalog": " "}, "catalog"),
            ({"facets": [{"name": "fit", "values": []}]}, "facets.0.values"),
            ({"facets": [Facet(name="fit", values=["a"])] * 2}, "facets name fit more than once"),
        ],
    )
    async def test_an_argument_out_of_its_range_is_named_before_any_request(
        self, sandbox: Sandbox, arguments: dict[str, Any], named: str
    ) -> None:
        async with open_client(sandbox) as client:
            with pytest.raises(ValidationError, match=named) as caught:
                await client.search_products(**arguments)
            assert isinstance(caught.value, ValueError)
            with pytest.raises(ValidationError, match=named):
                _ = [page async for page in client.iter_pages(**arguments)]
            with pytest.raises(ValidationError, match=named):
                _ = [product async for product in client.iter_products(**arguments)]
        assert sandbox.requests == []
        assert client.statistics.requests == 0

    async def test_all_pages_take_no_cursor(self, sandbox: Sandbox) -> None:
        arguments: dict[str, Any] = {"cursor": "c"}
        async with open_client(sandbox) as client:
            with pytest.raises(ValueError, match="cursor was passed"):
                _ = [page async for page in client.iter_pages(**arguments)]
            with pytest.raises(ValueError, match="cursor was passed"):
                _ = [item async for item in client.iter_products(**arguments)]
        assert sandbox.requests == []
