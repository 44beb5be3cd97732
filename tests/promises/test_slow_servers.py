"""A server that sends something for ever holds no request beyond its time, with either client."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from octogen_dagster.api.retry import RetryPolicy
from octogen_dagster.errors import OctogenTimeoutError
from tests.api.clients import Transport, open_client
from tests.api.servers import POLL_SECONDS, RawServer, Received, http, page

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
            with pytest.raises(OctogenTimeoutError, match=r"timeout 0\.3 s, 300 s with all"):
                await client.list_catalogs()
        assert not server.closing.is_set()


@pytest.mark.parametrize("drip", ["header", "body", "continue"])
async def test_a_request_ends_after_its_deadline_with_all_retries(
    transport: Transport, drip: str
) -> None:
    policy = RetryPolicy(attempts=1000, deadline=1.5, first_delay=0.001, max_delay=0.001)
    with RawServer(lambda _: dripping(server, *DRIPS[drip])) as server:
        async with open_client(server, transport, retry=policy, timeout=0.2) as client:
            with pytest.raises(OctogenTimeoutError, match=r"1\.5 s with all retries"):
                await client.list_catalogs()
        assert not server.closing.is_set()
    assert client.statistics.retries >= 1


@pytest.mark.parametrize(
    "early", [b"", b"HTTP/1.1 103 Early Hints\r\n\r\n", STATUS], ids=["none", "103", "status"]
)
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
        async with open_client(server, transport, timeout=2) as client:
            with pytest.raises(OctogenTimeoutError):
                await client.search_products(q="first")
            assert (await client.search_products(q="second")).uuids == ["second"]
            assert (await client.search_products(q="third")).uuids == ["third"]
