"""What other users of httpx log in the process is theirs; the API key is in no log all the same."""

from __future__ import annotations

import asyncio
import logging

import httpx
import pytest

from octogen_dagster import OctogenClient, ProductSearch, scan_products
from octogen_dagster.errors import OctogenAuthenticationError
from tests.api.servers import KEY, RawServer, Received, http, page

SECRET = KEY.rpartition("_")[2]
HTTP_LOGGERS = ("httpx", "httpcore.connection", "httpcore.http11", "httpcore.http2")


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """Everything that any library logs."""
    for name in (None, "httpx", "httpcore", "asyncio", "octogen_dagster"):
        caplog.set_level(logging.DEBUG, logger=name)
    return caplog


async def read(server: RawServer) -> list[str]:
    async with OctogenClient(api_key=KEY, base_url=server.base_url) as client:
        return [product.uuid async for product in client.iter_products(catalog="acme")]


def test_their_records_keep_arguments_and_tracebacks(log: pytest.LogCaptureFixture) -> None:
    with RawServer(lambda _: http(200, page(["a"]))) as server:

        async def read_beside_another_user() -> None:
            async with OctogenClient(api_key=KEY, base_url=server.base_url) as client:
                await client.search_products(catalog="acme")
                log.clear()
                async with httpx.AsyncClient(trust_env=False) as another:
                    await another.get(f"{server.origin}/another")
                for name in HTTP_LOGGERS:
                    try:
                        raise ValueError("theirs")
                    except ValueError:
                        logging.getLogger(name).exception("sent %s to %s", "this", "that")

        asyncio.run(read_beside_another_user())
    (request,) = (record for record in log.records if "/another" in record.getMessage())
    assert request.name == "httpx"
    assert request.args
    theirs = [record for record in log.records if record.msg == "sent %s to %s"]
    assert [record.name for record in theirs] == [*HTTP_LOGGERS]
    for record in theirs:
        assert record.args == ("this", "that")
        assert record.exc_info
        assert isinstance(record.exc_info[1], ValueError)


def test_nothing_is_left_on_their_loggers() -> None:
    before = {name: [*logging.getLogger(name).filters] for name in HTTP_LOGGERS}
    with RawServer(lambda _: http(200, page(["a"]))) as server:
        assert asyncio.run(read(server)) == ["a"]
    assert {name: logging.getLogger(name).filters for name in HTTP_LOGGERS} == before
    assert not any(before.values())


@pytest.mark.parametrize("status", [200, 401])
def test_the_key_is_in_no_log_and_in_no_error(log: pytest.LogCaptureFixture, status: int) -> None:
    def respond(request: Received) -> list[bytes]:
        if request.target == "/v1/catalogs":
            return http(404, {"detail": "Not Found"})
        return http(status, page(["a"]) if status == 200 else {"detail": "Invalid API key"})

    shown: list[str] = []
    with RawServer(respond) as server:
        search = ProductSearch(catalogs=["acme"])
        scan = scan_products(search, api_key=KEY, base_url=server.base_url)
        for each in (lambda: asyncio.run(read(server)), scan.collect):
            try:
                each()
            except OctogenAuthenticationError as error:
                shown += [str(error), repr(error), repr(error.response.request.headers)]
            else:
                assert status == 200
    assert len(server.received) >= 2
    assert all(request.headers["authorization"] == f"Bearer {KEY}" for request in server.received)
    names = {record.name.partition(".")[0] for record in log.records}
    assert {"httpx", "httpcore"} <= names
    shown += [f"{record.getMessage()} {record.args!r} {record.exc_info}" for record in log.records]
    assert [text for text in shown if SECRET in text] == []
