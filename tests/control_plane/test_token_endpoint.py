from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest
from pydantic import SecretStr

from octogen_dagster.control_plane.token_endpoint import TokenEndpoint, TokenResponse
from octogen_dagster.errors import (
    OctogenConnectionError,
    OctogenError,
    OctogenMCPAuthenticationError,
    OctogenMCPError,
    OctogenMCPRateLimitError,
    OctogenTimeoutError,
)
from tests.api.servers import RawServer, dripping, hanging, http, in_turn
from tests.control_plane.servers import QUICK, grant, quick
from tests.sharing.hostile_hub import HostileHub as Hub
from tests.sharing.hostile_hub import HubFault
from tests.sharing.secrets import leaks

OLD, NEW = SecretStr("refresh-0123456789-old"), SecretStr("refresh-0123456789-new")
ACCESS = SecretStr("access-0123456789")


def refresh(server: RawServer, **settings: Any) -> TokenResponse:
    settings = {"retry": QUICK} | settings
    return TokenEndpoint(f"{server.origin}/token", **settings).refresh("client", OLD)


def test_the_request_is_a_form_with_the_refresh_token() -> None:
    with RawServer(in_turn(grant())) as server:
        refresh(server)
    (request,) = server.received
    assert (request.method, request.target) == ("POST", "/token")
    assert request.headers["content-type"] == "application/x-www-form-urlencoded"
    assert request.body == (
        b"grant_type=refresh_token&refresh_token=refresh-0123456789-old&client_id=client"
    )


@pytest.mark.parametrize(
    ("fields", "response"),
    [
        ({}, TokenResponse(ACCESS, None, 300.0)),
        ({"refresh_token": NEW.get_secret_value()}, TokenResponse(ACCESS, NEW, 300.0)),
        ({"refresh_token": ""}, TokenResponse(ACCESS, None, 300.0)),
        ({"access_token": None}, TokenResponse(None, None, 300.0)),
        ({"access_token": "two words"}, TokenResponse(None, None, 300.0)),
        ({"expires_in": None}, TokenResponse(ACCESS, None, None)),
        ({"expires_in": "soon"}, TokenResponse(ACCESS, None, None)),
        ({"expires_in": 10**400}, TokenResponse(ACCESS, None, None)),
        ({"expires_in": math.nan}, TokenResponse(ACCESS, None, None)),
        ({"expires_in": True}, TokenResponse(ACCESS, None, None)),
        ({"expires_in": -5}, TokenResponse(ACCESS, None, -5.0)),
    ],
)
def test_the_response_holds_what_can_be_used(
    fields: dict[str, Any], response: TokenResponse
) -> None:
    with RawServer(in_turn(grant(**fields))) as server:
        assert refresh(server) == response


@pytest.mark.parametrize("token", ["two words", "é", 5, {"token": "x"}, " "])
def test_a_new_refresh_token_that_cannot_be_one_is_an_error(token: Any) -> None:
    with (
        RawServer(in_turn(grant(refresh_token=token))) as server,
        pytest.raises(OctogenMCPAuthenticationError) as caught,
    ):
        refresh(server)
    assert str(caught.value) == (
        f"The token endpoint {server.origin}/token gave a new refresh token that cannot be one: a "
        "token is one word, without blanks. The one it was given may be spent now: run "
        "`octogen-dagster login` to log in again."
    )


@pytest.mark.parametrize(
    ("response", "kind", "message"),
    [
        (
            http(
                400,
                {
                    "error": "invalid_grant",
                    "error_description": f"spent: {OLD.get_secret_value()}",
                },
            ),
            OctogenMCPAuthenticationError,
            "answered 400 (invalid_grant: spent: [refresh token]): the refresh token or the client "
            "id is not valid any more. Run `octogen-dagster login` to log in again.",
        ),
        (
            http(401, {"error": "invalid_client", "error_description": 5}),
            OctogenMCPAuthenticationError,
            "answered 401 (invalid_client): the refresh token or",
        ),
        (
            http(400, {"error": "x" * 1000}),
            OctogenMCPAuthenticationError,
            f"answered 400 ({'x' * 200}): the",
        ),
        (http(400, {"error": 5}), OctogenMCPError, "answered 400 and no tokens (application/json)"),
        (http(200, {}), OctogenMCPError, "answered 200 and no tokens (application/json)"),
        (http(200, "<h1>Hello</h1>"), OctogenMCPError, "200 and no tokens (text/html): check the"),
        (http(200, [1]), OctogenMCPError, "200 and no tokens (application/json): check the"),
        (http(404, "<h1>No</h1>"), OctogenMCPError, "answered 404 and no tokens (text/html)"),
        (http(302, location="http://x"), OctogenMCPError, "answered 302 and no tokens"),
        (http(503, "busy"), OctogenMCPError, "answered 503: try again later"),
        (
            http(429, {}, retry_after="900"),
            OctogenMCPRateLimitError,
            "answered 429: try again later",
        ),
        ([b""], OctogenConnectionError, "did not answer (RemoteProtocolError): check the address"),
    ],
)
def test_a_response_without_tokens_is_an_error_that_shows_no_secret(
    response: list[bytes], kind: type[OctogenError], message: str
) -> None:
    with RawServer(lambda _: response) as server, pytest.raises(kind) as caught:
        refresh(server)
    assert type(caught.value) is kind
    assert f"The token endpoint {server.origin}/token " in str(caught.value)
    assert message in str(caught.value)
    assert leaks(caught.value, OLD.get_secret_value()) == []


def test_failures_that_may_pass_are_retried(hub: Hub) -> None:
    hub.inject(HubFault("http_status", 503, method="token", times=2))
    endpoint = TokenEndpoint(hub.token_endpoint, retry=QUICK)
    endpoint.refresh(hub.client_id, SecretStr(hub.refresh_token))
    assert [call.outcome for call in hub.calls] == ["503", "503", "OK"]


def test_an_endpoint_that_hangs_once_is_asked_again() -> None:
    server: RawServer

    def respond(_: object) -> Iterable[bytes]:
        return hanging(lambda: server) if len(server.received) == 1 else grant()

    with RawServer(respond) as server:
        assert refresh(server, timeout=0.5).access_token == ACCESS


def test_an_endpoint_that_hangs_is_a_timeout() -> None:
    server: RawServer
    with (
        RawServer(lambda _: hanging(lambda: server)) as server,
        pytest.raises(OctogenTimeoutError, match=r"did not answer within 0\.1 s: try again"),
    ):
        refresh(server, timeout=0.1, retry=quick(deadline=0.15))


def slow_headers(server: Callable[[], RawServer]) -> Iterator[bytes]:
    yield b"HTTP/1.1 200 Answer\r\n"
    while not server().closing.wait(0.005):
        yield b"x: y\r\n"


@pytest.mark.timeout(20)
@pytest.mark.parametrize("respond", [dripping, slow_headers])
def test_the_timeout_bounds_the_whole_response(
    respond: Callable[[Callable[[], RawServer]], Iterator[bytes]],
) -> None:
    server: RawServer
    with (
        RawServer(lambda _: respond(lambda: server)) as server,
        pytest.raises(OctogenTimeoutError, match=r"did not answer within 0\.3 s: try again"),
    ):
        refresh(server, timeout=0.3, retry=quick(deadline=0.4))


@pytest.mark.timeout(20)
def test_a_response_without_end_is_not_read_to_its_end() -> None:
    def without_end() -> Iterator[bytes]:
        yield http(length=10**12)[0]
        while True:
            yield b" " * 100_000

    with (
        RawServer(lambda _: without_end()) as server,
        pytest.raises(OctogenMCPError, match=r"answered 200 and no tokens \(application/json\)"),
    ):
        refresh(server)


def test_a_refresh_token_is_not_sent_to_another_machine_in_the_clear() -> None:
    with pytest.raises(ValueError, match=r"The token endpoint .* would send a token over plain"):
        TokenEndpoint("http://auth.example/")
