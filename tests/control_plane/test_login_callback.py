from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest

from octogen_dagster.control_plane.login_callback import LoginCallback, listening
from octogen_dagster.errors import OctogenMCPAuthenticationError
from tests.api.servers import RawServer, http

REDIRECT_URI = "http://127.0.0.1:0/callback"
LOGIN_PAGE = "https://auth.example/authorize?client_id=x&state=expected"


@pytest.fixture
async def callback() -> AsyncIterator[LoginCallback]:
    """The callback of a login whose page is open."""
    async with listening(REDIRECT_URI) as callback:
        callback.expect(LOGIN_PAGE)
        yield callback


async def get(url: str) -> httpx.Response:
    async with httpx.AsyncClient(trust_env=False) as client:
        return await client.get(url)


async def test_the_code_of_the_expected_login_is_returned(callback: LoginCallback) -> None:
    assert callback.redirect_uri.startswith("http://127.0.0.1:")
    response = await get(f"{callback.redirect_uri}?code=abc&state=expected&iss=octogen")
    assert response.text == "Octogen has your answer: this window can be closed."
    result = await callback.wait(30)
    assert (result.code, result.state, result.iss) == ("abc", "expected", "octogen")


@pytest.mark.parametrize(
    "suffix",
    ["?code=made-up&state=other", "?code=made-up", "", "/favicon.ico?state=expected", "/?code=x"],
)
async def test_other_requests_are_not_found_and_do_not_end_the_wait(
    callback: LoginCallback, suffix: str
) -> None:
    response = await get(f"{callback.redirect_uri}{suffix}")
    assert (response.status_code, response.text) == (404, "Not found.")
    await get(f"{callback.redirect_uri}?code=abc&state=expected")
    assert (await callback.wait(30)).code == "abc"


async def test_nothing_is_accepted_before_the_login_page_is_known() -> None:
    async with listening(REDIRECT_URI) as callback:
        for query in ("?code=made-up&state=", "?code=made-up"):
            assert (await get(f"{callback.redirect_uri}{query}")).status_code == 404
        callback.expect("https://auth.example/authorize")  # a page without a state
        assert (await get(f"{callback.redirect_uri}?code=made-up")).status_code == 404


async def test_the_first_callback_counts(callback: LoginCallback) -> None:
    for code in ("first", "second"):
        await get(f"{callback.redirect_uri}?code={code}&state=expected")
    assert (await callback.wait(30)).code == "first"


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ("error=access_denied&error_description=You+said+no", "access_denied: You said no"),
        ("error=server_error", "server_error"),
        ("", "no reason given"),
        (f"error={'x' * 1000}", "x" * 300),
    ],
)
async def test_a_callback_without_a_code_is_a_refused_login(
    callback: LoginCallback, query: str, reason: str
) -> None:
    await get(f"{callback.redirect_uri}?state=expected&{query}")
    with pytest.raises(OctogenMCPAuthenticationError) as caught:
        await callback.wait(30)
    assert str(caught.value) == (
        f"The login was refused ({reason}): log in again and agree, or ask Octogen for access."
    )


async def test_a_browser_that_does_not_return_in_time_is_an_error(callback: LoginCallback) -> None:
    with pytest.raises(OctogenMCPAuthenticationError) as caught:
        await callback.wait(0.01)
    assert str(caught.value) == (
        "Nobody logged in within 0.01 s: run `octogen-dagster login` again."
    )


@pytest.mark.timeout(20)
async def test_connections_that_a_browser_leaves_open_are_closed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    readers = []
    async with listening(REDIRECT_URI) as callback:
        callback.expect(LOGIN_PAGE)
        host, _, port = callback.redirect_uri.split("/")[2].partition(":")
        for sent in (b"", b"GET / HTTP/1.1\r\nHost: x\r\n"):
            reader, writer = await asyncio.open_connection(host, int(port))
            writer.write(sent)
            await writer.drain()
            readers.append(reader)
        await get(f"{callback.redirect_uri}?code=abc&state=expected")
    assert [await read_all(reader) for reader in readers] == [b"", b""]
    assert [record for record in caplog.records if record.name == "asyncio"] == []


async def read_all(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.read()
    except ConnectionResetError:
        return b""


@pytest.mark.parametrize(
    "sent", [b"\r\n\r\n", b"nonsense\r\n\r\n", b"x" * 100_000, b"\xff \xff\r\n\r\n"]
)
async def test_a_request_that_is_no_http_does_not_stop_the_server(
    callback: LoginCallback, sent: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    host, _, port = callback.redirect_uri.split("/")[2].partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(sent)
    assert b"200 OK" not in await read_all(reader)
    writer.close()
    await get(f"{callback.redirect_uri}?code=abc&state=expected")
    assert (await callback.wait(30)).code == "abc"
    assert [record for record in caplog.records if record.name == "asyncio"] == []


async def test_a_port_that_is_taken_is_an_error() -> None:
    with RawServer(lambda _: http()) as server, pytest.raises(OSError, match="in use"):
        async with listening(f"{server.origin}/callback"):
            pass


@pytest.mark.parametrize(
    "redirect_uri",
    [
        "http://octogen.example:1/callback",
        "https://127.0.0.1:1/callback",
        "http://127.0.0.1/callback",
        "http://127.0.0.1:99999/callback",
        "http://127.0.0.1:1",
        "http://127.0.0.1:1/callback?x=y",
        "http://[",
    ],
)
async def test_a_redirect_uri_elsewhere_is_an_error(redirect_uri: str) -> None:
    with pytest.raises(ValueError, match="is not one of this machine: give http://127"):
        async with listening(redirect_uri):
            pass
