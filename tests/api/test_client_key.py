"""The API key goes to the configured host and appears nowhere else, whatever fails."""

from __future__ import annotations

import asyncio
import dataclasses
import gzip
import json
import logging
import pickle
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from octogen_dagster.api.client import OctogenClient
from octogen_dagster.api.credentials import ApiKey
from octogen_dagster.api.retry import RetryPolicy
from octogen_dagster.errors import (
    OctogenAPIError,
    OctogenConnectionError,
    OctogenError,
    OctogenPagingError,
    OctogenTimeoutError,
)
from octogen_dagster.sandbox.faults import Fault
from octogen_dagster.sandbox.server import Sandbox
from tests.api.clients import ONCE, QUICK, Transport, open_client
from tests.api.leaks import chain, frames_of, leaks, shown, texts_of_response
from tests.api.servers import KEY, RawServer, Received, dripping, hanging, http, page

STATUSES = (400, 401, 402, 403, 404, 422, 429, 500, 503)


@pytest.fixture(autouse=True)
def _nothing_in_the_log(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Fail a test during which any library logs the key, at any level."""
    for name in (None, "httpx", "httpcore", "urllib3", "asyncio", "octogen_dagster"):
        caplog.set_level(logging.DEBUG, logger=name)
    yield
    records = caplog.get_records("call")
    shown_records = [
        f"{record.getMessage()} {record.args!r} {record.exc_text}" for record in records
    ]
    assert [text for text in shown_records if KEY in text] == []


async def failure(server: Any, transport: Transport, retry: RetryPolicy = ONCE) -> OctogenError:
    """The error that a search raises."""
    async with open_client(server, transport, retry=retry) as client:
        with pytest.raises(OctogenError) as caught:
            await client.search_products(catalog="strada")
        assert KEY not in shown(client)
    return caught.value


def assert_silent(error: OctogenError) -> None:
    assert frames_of(error), "there is a traceback to look at"
    assert leaks(error, KEY) == []
    assert KEY.encode() not in pickle.dumps(error)


def echo(status: int, as_json: bool) -> Any:
    """A server that returns the key that it received, in the headers and in the body."""

    def respond(request: Received) -> list[bytes]:
        sent = request.headers["authorization"]
        body: Any = {"detail": f"refused {sent}"} if as_json else f"<h1>{sent}</h1>"
        return http(status, body, x_request_id=sent, x_echo=sent, retry_after=sent)

    return respond


def test_leaks_are_found() -> None:
    """`leaks` finds a key in a text, in a local and in a chained error."""
    namespace: dict[str, Any] = {"KEY": KEY}
    exec(
        "def fail():\n  headers = {'authorization': KEY}\n  try: int(KEY)\n"
        "  except ValueError as error: raise LookupError('x') from None",
        namespace,
    )
    with pytest.raises(LookupError) as caught:
        namespace["fail"]()
    assert len(list(chain(caught.value))) == 2
    places = leaks(caught.value, KEY)
    assert "LookupError: headers in fail" in places
    assert "ValueError: str" in places


class TestResponses:
    @pytest.mark.parametrize("status", STATUSES)
    async def test_the_error_of_a_status_is_silent(
        self, sandbox: Sandbox, transport: Transport, status: int
    ) -> None:
        sandbox.inject(Fault("status", status, retry_after=0))
        policy = dataclasses.replace(QUICK, attempts=1)
        error = await failure(sandbox, transport, policy)
        assert isinstance(error, OctogenAPIError)
        assert_silent(error)

    @pytest.mark.parametrize("kind", ["html", "truncate", "wrong_type"])
    async def test_the_error_of_an_unusable_body_is_silent(
        self, sandbox: Sandbox, transport: Transport, kind: Any
    ) -> None:
        sandbox.inject(Fault(kind))
        error = await failure(sandbox, transport)
        assert isinstance(error, OctogenAPIError)
        assert_silent(error)

    async def test_the_error_of_an_operation_that_does_not_exist_is_silent(
        self, current: Sandbox
    ) -> None:
        async with open_client(current) as client:
            with pytest.raises(OctogenAPIError) as caught:
                await client.list_catalogs()
        assert_silent(caught.value)

    async def test_the_error_of_a_failed_negotiation_is_silent(self, transport: Transport) -> None:
        with Sandbox(api_key=KEY, generation="current", credit_usd=0) as broke:
            error = await failure(broke, transport)
        assert [request.status for request in broke.requests] == [422, 402]
        assert_silent(error)

    async def test_the_error_of_looping_pages_is_silent(
        self, sandbox: Sandbox, transport: Transport
    ) -> None:
        sandbox.inject(Fault("loop_cursor"))
        async with open_client(sandbox, transport) as client:
            with pytest.raises(OctogenPagingError) as caught:
                _ = [item async for item in client.iter_products(limit=5)]
        assert_silent(caught.value)

    async def test_a_page_is_silent(self, sandbox: Sandbox, transport: Transport) -> None:
        async with open_client(sandbox, transport) as client:
            found = await client.search_products()
            assert KEY not in shown(client)
        assert KEY not in shown(found)
        assert KEY.encode() not in pickle.dumps(found)


class TestRefusedSettings:
    """Whatever a constructor refuses, its frames do not show the key that was passed."""

    @pytest.mark.parametrize(
        "make",
        [
            lambda: OctogenClient(api_key=f"{KEY}\n{KEY}"),
            lambda: OctogenClient(api_key=KEY, base_url="no-url"),
            lambda: ApiKey(f"{KEY} {KEY}"),
        ],
    )
    def test_the_error_is_silent(self, make: Callable[[], object]) -> None:
        with pytest.raises(ValueError, match=r"Octogen API key|base_url") as caught:
            make()
        assert frames_of(caught.value)
        assert leaks(caught.value, KEY) == []


class TestMissingResponses:
    async def test_the_error_of_a_body_that_is_cut_off_is_silent(
        self, sandbox: Sandbox, transport: Transport
    ) -> None:
        sandbox.inject(Fault("cut"))
        error = await failure(sandbox, transport, QUICK)
        assert isinstance(error, OctogenConnectionError)
        assert_silent(error)

    async def test_the_error_of_a_closed_connection_is_silent(self, transport: Transport) -> None:
        with RawServer(lambda _: []) as server:
            error = await failure(server, transport)
        assert isinstance(error, OctogenConnectionError)
        assert_silent(error)

    async def test_the_error_of_a_refused_connection_is_silent(self, transport: Transport) -> None:
        with RawServer(lambda _: []) as gone:
            pass
        error = await failure(gone, transport)
        assert isinstance(error, OctogenConnectionError)
        assert_silent(error)

    @pytest.mark.parametrize("slow", [hanging, dripping])
    async def test_the_error_of_a_slow_response_is_silent(
        self, transport: Transport, slow: Any
    ) -> None:
        with RawServer(lambda _: slow(lambda: server)) as server:
            error = await failure(server, transport, RetryPolicy(deadline=0.2))
        assert isinstance(error, OctogenTimeoutError)
        assert_silent(error)

    async def test_the_error_of_a_timeout_of_the_caller_is_silent(self) -> None:
        with RawServer(lambda _: hanging(lambda: server)) as server:
            async with open_client(server) as client:
                with pytest.raises(asyncio.TimeoutError) as caught:
                    await asyncio.wait_for(client.search_products(), 0.1)
        assert leaks(caught.value, KEY) == []


class TestServerThatEchoesTheKey:
    @pytest.mark.parametrize("status", [401, 422, 500])
    @pytest.mark.parametrize("as_json", [True, False])
    async def test_an_echo_in_an_error_is_masked(
        self, transport: Transport, status: int, as_json: bool
    ) -> None:
        with RawServer(echo(status, as_json)) as server:
            error = await failure(server, transport)
        assert isinstance(error, OctogenAPIError)
        assert "Bearer [api key]" in str(error)
        assert error.response.headers["x-echo"] == error.request_id == "Bearer [api key]"
        assert_silent_response(error)

    async def test_an_echo_in_a_web_page_is_masked(self, transport: Transport) -> None:
        with RawServer(echo(200, as_json=False)) as server:
            error = await failure(server, transport)
        assert isinstance(error, OctogenAPIError)
        assert error.response.text == "<h1>Bearer [api key]</h1>"
        assert_silent_response(error)

    async def test_an_echo_in_a_compressed_error_is_masked(self, transport: Transport) -> None:
        def respond(request: Received) -> list[bytes]:
            body = json.dumps({"detail": request.headers["authorization"]}).encode()
            return http(500, gzip.compress(body), content_encoding="gzip")

        with RawServer(respond) as server:
            error = await failure(server, transport)
        assert isinstance(error, OctogenAPIError)
        assert error.detail == "Bearer [api key]"
        assert_silent_response(error)

    async def test_an_echo_in_a_page_is_masked(self, transport: Transport) -> None:
        def respond(request: Received) -> list[bytes]:
            return http(200, page(["a"]) | {"sentBy": request.headers["authorization"]})

        with RawServer(respond) as server:
            async with open_client(server, transport) as client:
                found = await client.search_products()
        assert found.model_extra == {"sentBy": "Bearer [api key]"}


def assert_silent_response(error: OctogenError) -> None:
    assert_silent(error)
    assert isinstance(error, OctogenAPIError)
    assert all(KEY not in text for text in texts_of_response(error.response))
