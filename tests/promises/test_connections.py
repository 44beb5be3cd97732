"""Connections, proxies and certificates, with both clients."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest

from octogen_dagster import ProductSearch, scan_products
from octogen_dagster.errors import OctogenConnectionError, OctogenError
from tests.api.certificates import make_certificate
from tests.api.clients import Transport, open_client
from tests.api.servers import KEY, RawServer, Received, http, page

PAGE = page([f"u-{number}" for number in range(100)])


class At:
    """A service at any address."""

    api_key = KEY

    def __init__(self, base_url: str) -> None:
        self.base_url = base_url


async def search(server: Any, transport: Transport = "blocking", **settings: Any) -> list[str]:
    async with open_client(server, transport, **settings) as client:
        uuids: list[str] = (await client.search_products()).uuids
        return uuids


class TestFailures:
    async def test_a_refused_connection_is_a_connection_error(self, transport: Transport) -> None:
        with RawServer(lambda _: []) as gone:
            pass
        with pytest.raises(OctogenConnectionError, match=r"\(.*connect.*\)\. Check") as caught:
            await search(gone, transport)
        assert type(caught.value) is OctogenConnectionError
        assert gone.base_url in str(caught.value)

    async def test_the_client_works_after_failures(self, transport: Transport) -> None:
        responses = iter([http(200, PAGE, length=1_000_000), [], http(503), http(200, PAGE)])
        with RawServer(lambda _: next(responses)) as server:
            async with open_client(server, transport) as client:
                for _ in range(3):
                    with pytest.raises(OctogenError):
                        await client.search_products()
                assert len((await client.search_products()).items) == 100


def test_a_read_opens_a_connection_for_its_plan_and_one_for_each_thread() -> None:
    listed = [{"catalog": "acme", "productCount": 1, "lastIndexedAt": "2026-11-01T00:00:00Z"}]

    def respond(request: Received) -> list[bytes]:
        body = listed if request.target == "/v1/catalogs" else page(["a"])
        return http(200, body, connection="keep-alive")

    with RawServer(respond, keep_alive=True) as server:
        frame = scan_products(
            ProductSearch(catalogs=["acme"]), api_key=KEY, base_url=server.base_url
        )
        assert frame.collect().height == 1
        targets = [request.target for request in server.received]
        for _ in range(2):
            server.wait_for_closed_connection()
        assert not server.closed_connections.acquire(timeout=0.5)
    assert targets == ["/v1/catalogs", "/v1/products/search", "/v1/catalogs"]


class TestProxies:
    """The proxy responds itself, so that nothing leaves this machine."""

    @pytest.fixture
    def behind(self) -> Any:
        with RawServer(lambda _: http(200, page(["direct"]))) as server:
            yield server

    @pytest.fixture
    def proxy(self) -> Any:
        def respond(request: Received) -> list[bytes]:
            return http(502) if request.method == "CONNECT" else http(200, page(["proxied"]))

        with RawServer(respond) as server:
            yield server

    @pytest.mark.parametrize("variable", ["HTTPS_PROXY", "all_proxy"])
    async def test_https_uses_a_tunnel_that_does_not_see_the_key(
        self,
        monkeypatch: pytest.MonkeyPatch,
        proxy: RawServer,
        transport: Transport,
        variable: str,
    ) -> None:
        monkeypatch.setenv(variable, f"http://user:p%40ss@127.0.0.1:{proxy.port}")
        with pytest.raises(OctogenConnectionError, match="502") as caught:
            await search(At("https://octogen.invalid/v1"), transport)
        (request,) = proxy.received
        assert (request.method, request.target) == ("CONNECT", "octogen.invalid:443")
        assert "authorization" not in request.headers
        assert (
            request.headers["proxy-authorization"]
            == "Basic " + base64.b64encode(b"user:p@ss").decode()
        )
        assert KEY not in str(request)
        assert "p%40ss" not in str(caught.value)


class TestTls:
    async def test_an_untrusted_certificate_is_refused_before_the_key_is_sent(
        self, tmp_path: Path, transport: Transport
    ) -> None:
        certificate = make_certificate(tmp_path / "server.pem")
        refused = pytest.raises(OctogenConnectionError, match=r"(?i)certificate.*self.signed")
        with RawServer(lambda _: http(200, PAGE), certificate=certificate) as server, refused:
            await search(server, transport)
        assert server.received == []

    async def test_a_certificate_that_the_environment_trusts_is_accepted(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, transport: Transport
    ) -> None:
        certificate = make_certificate(tmp_path / "server.pem")
        monkeypatch.setenv("SSL_CERT_FILE", certificate)
        with RawServer(lambda _: http(200, PAGE), certificate=certificate) as server:
            assert len(await search(server, transport)) == 100
