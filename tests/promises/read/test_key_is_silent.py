"""The API key goes to the configured host and appears nowhere else, whatever fails."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable
from typing import Any

import pytest

from octogen_dagster.api.client import OctogenClient
from octogen_dagster.api.credentials import ApiKey
from octogen_dagster.errors import OctogenAPIError, OctogenConnectionError
from octogen_dagster.sandbox.faults import Fault
from octogen_dagster.sandbox.server import Sandbox
from tests.api.clients import QUICK, Transport, open_client
from tests.api.leaks import assert_silent, chain, failure, frames_of, leaks
from tests.api.servers import KEY, RawServer, Received, hanging, http

pytestmark = pytest.mark.usefixtures("silent_log")

STATUSES = (400, 401, 402, 403, 404, 422, 429, 500, 503)


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

    async def test_a_key_that_the_service_repeats_is_masked(self, transport: Transport) -> None:
        def repeat(request: Received) -> list[bytes]:
            return http(422, {"detail": f"no such key: {request.headers['authorization']}"})

        with RawServer(repeat) as server:
            error = await failure(server, transport)
        assert "no such key: " in str(error)
        assert_silent(error)

    @pytest.mark.parametrize("kind", ["html", "truncate", "wrong_type"])
    async def test_the_error_of_an_unusable_body_is_silent(
        self, sandbox: Sandbox, transport: Transport, kind: Any
    ) -> None:
        sandbox.inject(Fault(kind))
        error = await failure(sandbox, transport)
        assert isinstance(error, OctogenAPIError)
        assert_silent(error)

    async def test_the_error_of_a_failed_negotiation_is_silent(self, transport: Transport) -> None:
        with Sandbox(api_key=KEY, generation="current", credit_usd=0) as broke:
            error = await failure(broke, transport)
        assert [request.status for request in broke.requests] == [422, 402]
        assert_silent(error)


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

    async def test_the_error_of_a_refused_connection_is_silent(self, transport: Transport) -> None:
        with RawServer(lambda _: []) as gone:
            pass
        error = await failure(gone, transport)
        assert isinstance(error, OctogenConnectionError)
        assert_silent(error)

    async def test_the_error_of_a_timeout_of_the_caller_is_silent(self) -> None:
        with RawServer(lambda _: hanging(lambda: server)) as server:
            async with open_client(server) as client:
                with pytest.raises(asyncio.TimeoutError) as caught:
                    await asyncio.wait_for(client.search_products(), 0.1)
        assert leaks(caught.value, KEY) == []
