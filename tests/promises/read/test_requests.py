"""What passes is requested again by both clients, with the same headers and the same body."""

from __future__ import annotations

import base64
import gzip
import json
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import httpx2
import pytest

from octogen_dagster import OctogenAPIError, OctogenClient, ProductSearch
from octogen_dagster.api import http as http_module
from octogen_dagster.api.pacing import RateLimiter
from octogen_dagster.api.retry import RetryPolicy
from octogen_dagster.errors import (
    OctogenConnectionError,
    OctogenError,
    OctogenResponseError,
    OctogenTimeoutError,
)
from octogen_dagster.sandbox.faults import Fault
from octogen_dagster.sandbox.server import Sandbox
from tests.api.certificates import make_certificate
from tests.api.clients import OWN_TRANSPORTS, QUICK, Transport, open_client
from tests.api.leaks import assert_silent
from tests.api.servers import KEY, POLL_SECONDS, RawServer, Received, http, in_turn, page
from tests.results import scan


async def test_a_request_has_the_key_the_headers_and_the_body(transport: Transport) -> None:
    with RawServer(in_turn(http(503), http(200, page(["a"])))) as server:
        async with open_client(server, transport, retry=QUICK) as client:
            await client.search_products(q="dress")
    for request in server.received:
        assert (request.method, request.target) == ("POST", "/v1/products/search")
        assert request.headers["authorization"] == f"Bearer {KEY}"
        assert request.headers["accept"] == "application/json"
        assert request.headers["content-type"] == "application/json"
        assert "gzip" in request.headers["accept-encoding"]
        assert request.headers["user-agent"].startswith("octogen-dagster/")
        assert request.headers["x-octogen-request-context"] == (
            '{"trigger":"background","application":"octogen-dagster"}'
        )
        assert request.headers["host"] == f"127.0.0.1:{server.port}"
        assert request.json == {"q": "dress", "understand": False, "limit": 50}
    assert len(server.received) == 2


@pytest.mark.parametrize("library", [httpx, httpx2])
async def test_a_given_client_adds_its_headers_but_not_its_credentials(library: Any) -> None:
    headers = {"X-Team": "data", "Authorization": "Basic b3RoZXI="}
    with RawServer(lambda _: http(200, [])) as server:
        async with library.AsyncClient(headers=headers, auth=("other", "other")) as http_client:
            client = OctogenClient(api_key=KEY, base_url=server.base_url, http_client=http_client)
            await client.list_catalogs()
    (request,) = server.received
    assert request.headers["x-team"] == "data"
    assert request.headers["authorization"] == f"Bearer {KEY}"


@pytest.mark.parametrize("transport", OWN_TRANSPORTS)
async def test_retry_after_is_waited_for(transport: Transport) -> None:
    limited = http(429, {"detail": "rate_limit_exceeded"}, retry_after="1")
    with RawServer(in_turn(limited, http(200, page(["a"])))) as server:
        async with open_client(server, transport, retry=QUICK) as client:
            began = time.monotonic()
            await client.search_products()
            assert time.monotonic() - began >= 1
            assert client.statistics.rate_limit_wait_seconds >= 1


async def test_every_operation_and_every_page_is_retried(sandbox: Sandbox) -> None:
    for path in ("/catalogs", "/products/lookup"):
        sandbox.inject(Fault("status", 503, times=2, path=path))
    for number in (1, 2, 3):
        sandbox.inject(Fault("status", 503, times=2, path="/products/search", page=number))
    async with open_client(sandbox, retry=QUICK) as client:
        assert len(await client.list_catalogs()) == 2
        products = [item async for item in client.iter_products(catalog="strada", limit=10)]
        assert (await client.lookup_product(products[0].product_url)).product
    assert len({product.uuid for product in products}) == len(products) == 30
    assert client.statistics.retries == 10


async def test_a_bulk_read_gets_no_429_and_leaves_the_reserve() -> None:
    with Sandbox(
        catalogs={"northpeak": 24}, api_key=KEY, requests_per_minute=60, generation="seed"
    ) as sandbox:
        async with open_client(sandbox, rate_limiter=RateLimiter(reserved_percent=90)) as client:
            pages = [page async for page in client.iter_pages(catalog="northpeak", limit=3)]
        async with httpx.AsyncClient(base_url=sandbox.base_url) as probe:
            left = (await probe.get("/catalogs")).headers["x-ratelimit-remaining"]
        assert len(pages) == 8
        assert [request.status for request in sandbox.requests[:-1]] == [200] * 8
    assert client.statistics.rate_limit_wait_seconds > 0
    assert int(left) >= 0.9 * 60 - 2, "whole tokens, and the last request is on its way"


# A redirect is never followed, so that the key stays with the configured host.


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
    assert "redirects to 127.0.0.1. Redirects are not followed" in str(caught.value)
    assert len(server.received) == 1
    assert_silent(caught.value)


@pytest.mark.parametrize("library", [httpx, httpx2])
async def test_a_given_client_that_follows_redirects_does_not_follow_this_one(library: Any) -> None:
    with RawServer(lambda _: http(200, page(["stolen"]))) as elsewhere:
        location = f"{elsewhere.base_url}/products/search"
        with RawServer(lambda _: http(307, b"", location=location)) as server:
            async with library.AsyncClient(follow_redirects=True) as http_client:
                client = OctogenClient(
                    api_key=KEY, base_url=server.base_url, http_client=http_client
                )
                with pytest.raises(OctogenAPIError, match="Redirects are not followed"):
                    await client.search_products()
        assert elsewhere.received == []


# A response that is cut off is requested again; one that is too large or odd is refused.


PAGE = page([f"u-{number}" for number in range(100)])
CONTENT = json.dumps(PAGE).encode()
COMPRESS: dict[str, Callable[[bytes], bytes]] = {"gzip": gzip.compress, "deflate": zlib.compress}
JSON_BODY = b"content-type: application/json\r\n\r\n"
CUT = {
    "status line": b"HTTP/1.1 200",
    "status line alone": b"HTTP/1.1 200 OK\r\n",
    "header": b"HTTP/1.1 200 OK\r\ncontent-type: appl",
    "after a header": b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n",
    "headers of HTTP/1.0": b"HTTP/1.0 200 OK\r\ncontent-type: application/json\r\n",
    "HTTP/1.0 without a length": b"HTTP/1.0 200 OK\r\n" + JSON_BODY + CONTENT[:-2],
    "HTTP/1.0 in a text": b"HTTP/1.0 200 OK\r\n" + JSON_BODY + b'{"items": [{"uuid": "x',
    "HTTP/1.1 without a length": b"HTTP/1.1 200 OK\r\n" + JSON_BODY + CONTENT[:100],
    "body": http(200, CONTENT, length=len(CONTENT) + 1)[0],
    "chunk": b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nff\r\n{",
    "after a chunk": b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\n{\r\n",
    **{
        encoding: http(200, compress(CONTENT)[:200], content_encoding=encoding)[0]
        for encoding, compress in COMPRESS.items()
    },
}


@pytest.mark.parametrize("cut", CUT.values(), ids=CUT.keys())
async def test_it_is_requested_again(transport: Transport, cut: bytes) -> None:
    with RawServer(in_turn([cut], http(200, PAGE))) as server:
        async with open_client(server, transport, retry=QUICK) as client:
            assert len((await client.search_products()).uuids) == 100
    assert len(server.received) == 2


@pytest.mark.parametrize("encoding", COMPRESS)
async def test_a_compressed_body_is_requested_and_decompressed(
    transport: Transport, encoding: str
) -> None:
    body = COMPRESS[encoding](CONTENT)
    with RawServer(lambda _: http(200, body, content_encoding=encoding)) as server:
        async with open_client(server, transport) as client:
            assert len((await client.search_products()).uuids) == 100
    if encoding == "gzip":
        assert encoding in server.received[0].headers["accept-encoding"]


class TestTooLarge:
    @pytest.mark.slow
    @pytest.mark.parametrize("transport", OWN_TRANSPORTS)
    async def test_a_small_body_that_becomes_a_huge_one_is_refused_at_once(
        self, transport: Transport
    ) -> None:
        bomb = gzip.compress(bytes(http_module.MAX_BODY_BYTES + 1), 1)
        with RawServer(lambda _: http(200, bomb, content_encoding="gzip")) as server:
            async with open_client(server, transport, retry=QUICK) as client:
                with pytest.raises(OctogenResponseError) as caught:
                    await client.search_products(catalog="acme")
        assert len(server.received) == 1
        assert str(caught.value) == (
            "Catalog 'acme' failed: the service responded with 200 and a body larger than 256 MB "
            "(application/json). Check base_url, or report this to Octogen."
        )

    @pytest.mark.parametrize(
        "head",
        [b"connection: close\r\n\r\n", b"transfer-encoding: chunked\r\n\r\n"],
        ids=["no length", "chunked"],
    )
    async def test_a_body_that_does_not_end_is_refused(
        self, monkeypatch: pytest.MonkeyPatch, transport: Transport, head: bytes
    ) -> None:
        monkeypatch.setattr(http_module, "MAX_BODY_BYTES", 100_000)
        chunk = b"3e8\r\n" + b" " * 1000 + b"\r\n" if b"chunked" in head else b" " * 1000

        def respond(_: object) -> list[bytes]:
            return [b"HTTP/1.1 200 OK\r\n" + head, *[chunk] * 200]

        with RawServer(respond) as server:
            async with open_client(server, transport) as client:
                with pytest.raises(OctogenResponseError, match="a body larger than"):
                    await client.search_products()


# A server that sends something for ever holds no request beyond its time, with either client.


STATUS = b"HTTP/1.1 200 OK\r\n"
CHUNKED = STATUS + b"content-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"
DRIPS = {
    "nothing": (b"", b""),
    "status line": (b"HTTP/1.1 200 ", b"x"),
    "header": (STATUS + b"x-slow: ", b"x"),
    "headers": (STATUS, b"x-slow: x\r\n"),
    "body": (STATUS + b"content-length: 1000000\r\n\r\n", b" "),
    "body without a length": (STATUS + b"\r\n", b" "),
    "chunk extension": (CHUNKED + b"1;", b"x"),
    "trailer": (CHUNKED + b"2\r\n[]\r\n0\r\nx-slow: ", b"x"),
    "continue": (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "early hints": (b"", b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n"),
}
drips = pytest.mark.parametrize(
    ("begin", "drop"), [pytest.param(*drip, id=name) for name, drip in DRIPS.items()]
)


def dripping(server: RawServer, begin: bytes, drop: bytes) -> Iterator[bytes]:
    yield begin
    while not server.closing.wait(0.02):
        yield drop


@drips
async def test_an_attempt_ends_after_its_time(
    transport: Transport, begin: bytes, drop: bytes
) -> None:
    with RawServer(lambda _: dripping(server, begin, drop)) as server:
        async with open_client(server, transport, timeout=0.3) as client:
            with pytest.raises(OctogenTimeoutError, match=r"timeout: 0\.3 s per attempt, 300 s"):
                await client.list_catalogs()
        assert not server.closing.is_set()


@pytest.mark.parametrize("drip", ["header", "body", "continue"])
@pytest.mark.parametrize("transport", OWN_TRANSPORTS)
async def test_a_request_ends_after_its_deadline_with_all_retries(
    transport: Transport, drip: str
) -> None:
    policy = RetryPolicy(attempts=1000, deadline=1.5, first_delay=0.001, max_delay=0.001)
    with RawServer(lambda _: dripping(server, *DRIPS[drip])) as server:
        async with open_client(server, transport, retry=policy, timeout=0.2) as client:
            with pytest.raises(OctogenTimeoutError, match=r"1\.5 s including retries"):
                await client.list_catalogs()
        assert not server.closing.is_set()
    assert client.statistics.retries >= 1


@pytest.mark.parametrize(
    "early", [b"", b"HTTP/1.1 103 Early Hints\r\n\r\n", STATUS], ids=["none", "103", "status"]
)
@pytest.mark.parametrize("transport", OWN_TRANSPORTS)
async def test_a_late_response_is_not_that_of_the_next_request(
    transport: Transport, early: bytes
) -> None:
    asked_again = threading.Event()

    def respond(request: Received) -> Iterator[bytes]:
        query = request.json["q"]
        if query == "first" and not asked_again.is_set():
            yield early
            asked_again.wait(POLL_SECONDS)
        asked_again.set()
        yield http(200, page([query]))[0]

    with RawServer(respond, keep_alive=True) as server:
        async with open_client(server, transport, timeout=5) as client:
            with pytest.raises(OctogenTimeoutError):
                await client.search_products(q="first")
            assert (await client.search_products(q="second")).uuids == ["second"]
            assert (await client.search_products(q="third")).uuids == ["third"]


# Connections, proxies and certificates, with both clients.


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
        frame = scan(server, ProductSearch(catalogs=["acme"]))
        assert frame.collect().height == 1
        targets = [request.target for request in server.received]
        for _ in range(2):
            server.wait_for_closed_connection()
        assert len(server.connections) == 2
    assert targets == ["/v1/catalogs", "/v1/products/search"]


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
        self, monkeypatch: pytest.MonkeyPatch, proxy: RawServer, transport: Transport, variable: str
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
