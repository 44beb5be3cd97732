"""A response that is cut off is requested again; one that is too large or odd is refused."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable

import pytest

from octogen_dagster.api import http as http_module
from octogen_dagster.errors import OctogenResponseError
from tests.api.clients import QUICK, Transport, open_client
from tests.api.servers import RawServer, http, in_turn, page

PAGE = page([f"u-{number}" for number in range(100)])
CONTENT = json.dumps(PAGE).encode()
COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "deflate": zlib.compress,
}
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
            "Catalog 'acme' was answered with 200 and a body of more than 256 MB "
            "(application/json). Check base_url, or report it to Octogen."
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
                with pytest.raises(OctogenResponseError, match="a body of more than"):
                    await client.search_products()
