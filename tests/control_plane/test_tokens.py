from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from octogen_dagster.control_plane.secret_files import SecretFile
from octogen_dagster.control_plane.tokens import (
    CommandToken,
    GivenToken,
    RefreshedToken,
    access_tokens,
)
from octogen_dagster.errors import (
    OctogenConnectionError,
    OctogenError,
    OctogenMCPAuthenticationError,
    OctogenMCPError,
    OctogenMCPRateLimitError,
    OctogenTimeoutError,
)
from octogen_dagster.sandbox.hub.faults import HubFault
from octogen_dagster.sandbox.hub.hub import Hub
from tests.api.servers import RawServer, dripping, hanging, http, in_turn
from tests.sharing.secrets import leaks

OLD, NEW, ACCESS = "refresh-0123456789-old", "refresh-0123456789-new", "access-0123456789"


@pytest.fixture
def file(tmp_path: Path) -> SecretFile:
    file = SecretFile(tmp_path / "refresh", "refresh token")
    file.path.write_text(OLD)
    return file


def at(server: RawServer, held: SecretFile | str, **settings: Any) -> RefreshedToken:
    return RefreshedToken(held, lambda: "client", f"{server.origin}/token", **settings)


def grant(**fields: Any) -> list[bytes]:
    return http(body={"access_token": ACCESS, "token_type": "Bearer", "expires_in": 300} | fields)


def test_a_given_token_is_good_until_it_is_refused() -> None:
    tokens = GivenToken(f" {ACCESS}\n")
    assert tokens.token() == SecretStr(ACCESS)
    with pytest.raises(OctogenMCPAuthenticationError, match="is refused; they live for some five"):
        tokens.token(refused=SecretStr(ACCESS))


@pytest.mark.parametrize("token", ["", " ", "two words", "é"])
def test_a_given_token_that_cannot_be_one(token: str) -> None:
    with pytest.raises(OctogenMCPAuthenticationError, match="was given is not a token"):
        GivenToken(token)


def test_a_refresh_token_is_replaced_in_its_file(hub: Hub, tmp_path: Path) -> None:
    hub.settings.rotate_refresh_tokens = True
    file = SecretFile(tmp_path / "refresh", "refresh token")
    file.path.write_text(hub.refresh_token)
    tokens = RefreshedToken(file, lambda: hub.client_id, hub.token_endpoint)
    first = tokens.token()
    assert file.read() == SecretStr(hub.refresh_token)
    assert tokens.token() == first
    second = tokens.token(refused=first)
    assert second != first
    assert file.read() == SecretStr(hub.refresh_token)
    assert [call.outcome for call in hub.calls] == ["OK", "OK"]
    assert file.path.stat().st_mode & 0o777 == 0o600


def test_a_refresh_token_stays_when_the_service_does_not_replace_it(
    hub: Hub, tmp_path: Path
) -> None:
    file = SecretFile(tmp_path / "refresh", "refresh token")
    file.path.write_text(hub.refresh_token)
    tokens = RefreshedToken(file, lambda: hub.client_id, hub.token_endpoint)
    tokens.token(refused=tokens.token())
    assert file.read() == SecretStr(hub.refresh_token)


@pytest.mark.parametrize(
    ("seconds", "requests"),
    [(300, 1), (None, 1), (0, 2), ("soon", 1), (-5, 2), (10**400, 1), (math.nan, 1), (True, 1)],
)
def test_an_access_token_is_used_while_it_lives(seconds: Any, requests: int) -> None:
    with RawServer(lambda _: grant(expires_in=seconds)) as server:
        tokens = at(server, OLD)
        assert tokens.token() == tokens.token() == SecretStr(ACCESS)
        assert len(server.received) == requests


def test_an_access_token_is_replaced_before_its_life_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1_000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    with RawServer(lambda _: grant(expires_in=300)) as server:
        tokens = at(server, OLD)
        for age, requests in ((0, 1), (269, 1), (271, 2)):
            now = 1_000.0 + age
            tokens.token()
            assert len(server.received) == requests


def test_what_is_sent_to_the_token_endpoint(file: SecretFile) -> None:
    with RawServer(in_turn(grant())) as server:
        at(server, file).token()
    (request,) = server.received
    assert (request.method, request.target) == ("POST", "/token")
    assert request.headers["content-type"] == "application/x-www-form-urlencoded"
    assert request.body == f"grant_type=refresh_token&refresh_token={OLD}&client_id=client".encode()


def test_the_replacement_is_stored_before_the_rest_of_the_answer_is_looked_at(
    file: SecretFile,
) -> None:
    with (
        RawServer(in_turn(grant(access_token=None, refresh_token=NEW))) as server,
        pytest.raises(OctogenMCPAuthenticationError, match="gave as access token is not a token"),
    ):
        at(server, file).token()
    assert file.read() == SecretStr(NEW)


@pytest.mark.parametrize("token", ["two words", "é", 5, {"token": NEW}, " "])
def test_a_replacement_that_cannot_be_one_is_an_error(file: SecretFile, token: Any) -> None:
    with (
        RawServer(in_turn(grant(refresh_token=token))) as server,
        pytest.raises(OctogenMCPAuthenticationError) as caught,
    ):
        at(server, file).token()
    assert str(caught.value) == (
        f"The token endpoint {server.origin}/token gave a new refresh token that cannot be one: a "
        "token is one word, without blanks. The one it was given may be spent now: run "
        "`octogen-mcp-login` to log in again."
    )
    assert file.read() == SecretStr(OLD)


def test_a_life_that_is_no_number_does_not_lose_the_replacement(file: SecretFile) -> None:
    with RawServer(in_turn(grant(expires_in=10**400, refresh_token=NEW))) as server:
        at(server, file).token()
    assert file.read() == SecretStr(NEW)


def test_nothing_is_spent_when_the_replacement_could_not_be_stored(
    file: SecretFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_only(*_: object) -> None:
        raise OSError(30, "Read-only file system")

    with RawServer(in_turn(grant(refresh_token=NEW))) as server:
        monkeypatch.setattr(os, "replace", read_only)
        with pytest.raises(OctogenMCPAuthenticationError, match="Read-only file system"):
            at(server, file).token()
        assert server.received == []


def test_a_token_that_is_spent_and_cannot_be_replaced(
    file: SecretFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace = os.replace

    def full(source: Any, target: Any) -> None:
        if NEW in Path(source).read_text():
            raise OSError(28, "No space left on device")
        replace(source, target)

    monkeypatch.setattr(os, "replace", full)
    with (
        RawServer(in_turn(grant(refresh_token=NEW))) as server,
        pytest.raises(OctogenMCPAuthenticationError, match="The token in it is spent now") as e,
    ):
        at(server, file).token()
    assert "No space left on device" in str(e.value)


def test_a_token_that_somebody_else_replaced_meanwhile(file: SecretFile) -> None:
    def answer(request: Any) -> list[bytes]:
        if OLD.encode() in request.body:
            file.path.write_text(NEW)  # by a program that does not lock it
            return http(400, {"error": "invalid_grant"})
        return grant()

    with RawServer(answer) as server:
        assert at(server, file).token() == SecretStr(ACCESS)
    assert file.read() == SecretStr(NEW)


def test_a_replacement_in_memory_serves_this_process_and_is_warned_about(
    hub: Hub, caplog: pytest.LogCaptureFixture
) -> None:
    hub.settings.rotate_refresh_tokens = True
    tokens = RefreshedToken(hub.refresh_token, lambda: hub.client_id, hub.token_endpoint)
    tokens.token(refused=tokens.token())
    assert [call.outcome for call in hub.calls] == ["OK", "OK"]
    assert "the new one is lost when this process ends" in caplog.text
    assert "sandbox-refresh" not in caplog.text


@pytest.mark.parametrize(
    ("answer", "kind", "message"),
    [
        (
            http(400, {"error": "invalid_grant", "error_description": f"spent: {OLD}"}),
            OctogenMCPAuthenticationError,
            "answered 400 (invalid_grant: spent: [refresh token]): the refresh token or the client "
            "id is not valid any more. Run `octogen-mcp-login` to log in again.",
        ),
        (http(401, {"error": "invalid_client"}), OctogenMCPAuthenticationError, "invalid_client"),
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
def test_no_tokens_from_the_endpoint(
    file: SecretFile, answer: list[bytes], kind: type[OctogenError], message: str
) -> None:
    with RawServer(lambda _: answer) as server, pytest.raises(kind) as caught:
        at(server, file).token()
    assert type(caught.value) is kind
    assert f"The token endpoint {server.origin}/token " in str(caught.value)
    assert message in str(caught.value)
    assert leaks(caught.value, OLD) == []
    assert file.read() == SecretStr(OLD)


def test_a_token_endpoint_that_hangs(file: SecretFile) -> None:
    server: RawServer
    with (
        RawServer(lambda _: hanging(lambda: server)) as server,
        pytest.raises(OctogenTimeoutError, match=r"did not answer within 0\.1 s: try again"),
    ):
        at(server, file, timeout=0.1, deadline=0.15).token()
    assert file.read() == SecretStr(OLD)


def slow_headers(server: Callable[[], RawServer]) -> Iterator[bytes]:
    yield b"HTTP/1.1 200 Answer\r\n"
    while not server().closing.wait(0.005):
        yield b"x: y\r\n"


@pytest.mark.timeout(20)
@pytest.mark.parametrize("answer", [dripping, slow_headers])
def test_a_token_endpoint_that_drips_is_not_listened_to_for_longer(
    file: SecretFile, answer: Callable[[Callable[[], RawServer]], Iterator[bytes]]
) -> None:
    server: RawServer
    with (
        RawServer(lambda _: answer(lambda: server)) as server,
        pytest.raises(OctogenTimeoutError, match=r"did not answer within 0\.3 s: try again"),
    ):
        at(server, file, timeout=0.3, deadline=0.4).token()
    with file.locked():
        assert file.read() == SecretStr(OLD)


@pytest.mark.timeout(20)
def test_a_token_endpoint_that_never_ends_is_not_read_to_the_end(file: SecretFile) -> None:
    def without_end() -> Iterator[bytes]:
        yield http(length=10**12)[0]
        while True:
            yield b" " * 100_000

    with (
        RawServer(lambda _: without_end()) as server,
        pytest.raises(OctogenMCPError, match=r"answered 200 and no tokens \(application/json\)"),
    ):
        at(server, file).token()


def test_a_token_endpoint_that_hangs_once(file: SecretFile) -> None:
    server: RawServer

    def answer(_: object) -> Any:
        return hanging(lambda: server) if len(server.received) == 1 else grant()

    with RawServer(answer) as server:
        assert at(server, file, timeout=0.5).token() == SecretStr(ACCESS)


def test_transient_failures_of_the_endpoint_are_tried_again(hub: Hub, tmp_path: Path) -> None:
    hub.settings.rotate_refresh_tokens = True
    hub.inject(HubFault("http_status", 503, method="token", times=2))
    file = SecretFile(tmp_path / "refresh", "refresh token")
    file.path.write_text(hub.refresh_token)
    RefreshedToken(file, lambda: hub.client_id, hub.token_endpoint).token()
    assert [call.outcome for call in hub.calls] == ["503", "503", "OK"]
    assert file.read() == SecretStr(hub.refresh_token)


def test_the_order_of_what_may_be_configured(tmp_path: Path) -> None:
    everything: dict[str, Any] = {
        "token_command": "echo x",
        "client_id": "client",
        "refresh_token": OLD,
        "refresh_token_file": tmp_path / "refresh",
        "access_token": ACCESS,
    }
    assert isinstance(access_tokens(**everything), CommandToken)
    del everything["token_command"]
    tokens = access_tokens(**everything)
    assert isinstance(tokens, RefreshedToken)
    with pytest.raises(OctogenMCPAuthenticationError, match=f"{tmp_path}/refresh cannot be read"):
        tokens.token()
    del everything["refresh_token_file"], everything["refresh_token"]
    assert isinstance(access_tokens(**everything), GivenToken)


def test_the_client_id_is_read_when_it_is_needed(hub: Hub, tmp_path: Path) -> None:
    client_id = tmp_path / "client"
    tokens = access_tokens(
        client_id="stale",
        client_id_file=client_id,
        refresh_token=hub.refresh_token,
        token_endpoint=hub.token_endpoint,
    )
    client_id.write_text(hub.client_id)
    tokens.token()
    assert hub.calls[-1].arguments == {"grant_type": "refresh_token", "client_id": hub.client_id}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "Nothing opens Octogen's MCP: run `octogen-mcp-login` and set OCTOGEN_MCP_REFRESH_"),
        ({"client_id": "x"}, "Nothing opens Octogen's MCP"),
        ({"refresh_token": OLD}, "its id is missing: set OCTOGEN_MCP_CLIENT_ID_FILE"),
    ],
)
def test_half_a_configuration(settings: dict[str, str], message: str) -> None:
    with pytest.raises(OctogenMCPAuthenticationError, match=message):
        access_tokens(**settings)


def test_a_token_endpoint_that_a_token_may_not_be_sent_to() -> None:
    with pytest.raises(ValueError, match="would send a token over plain http"):
        access_tokens(refresh_token=OLD, client_id="x", token_endpoint="http://auth.example/")


def test_no_token_shows_in_a_repr_or_a_log(hub: Hub, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    tokens = RefreshedToken(hub.refresh_token, lambda: hub.client_id, hub.token_endpoint)
    access = tokens.token()
    seen = f"{tokens!r} {vars(tokens)} {access} {access!r} {caplog.text}"
    assert hub.refresh_token not in seen
    assert access.get_secret_value() not in seen
