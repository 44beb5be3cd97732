"""The login to Octogen's MCP in a browser; it leaves a refresh token and a client id in files."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

from octogen_dagster.api.urls import checked_url, may_use_proxy
from octogen_dagster.control_plane.session import DEFAULT_MCP_URL, leaves, requiring_mcp
from octogen_dagster.control_plane.token_endpoint import secret
from octogen_dagster.errors import (
    OctogenConnectionError,
    OctogenError,
    OctogenMCPAuthenticationError,
)

if sys.version_info >= (3, 11):
    from asyncio import timeout
else:
    from async_timeout import timeout

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from mcp.client.auth import OAuthFlowError
    from mcp.shared.auth import AuthorizationCodeResult, OAuthClientInformationFull, OAuthToken
    from mcp.shared.exceptions import MCPError

    from octogen_dagster.control_plane.secret_files import SecretFile

_HOST = "127.0.0.1"
_PATH = "/callback"
_REQUEST_TIMEOUT = 30.0
_MAX_REASON_LENGTH = 300


def login(
    *,
    refresh_token_file: SecretFile,
    client_id_file: SecretFile,
    show: Callable[[str], None],
    mcp_url: str = DEFAULT_MCP_URL,
    port: int = 0,
    timeout: float = 300.0,
) -> str:
    """Register a public OAuth client, let a person log in, and store what refreshing needs.

    The two files belong together and are written when the login has succeeded, not before.

    Args:
        refresh_token_file: Where the refresh token is stored.
        client_id_file: Where the id of the client is stored.
        show: Called with the address of the login page, which a person is to open.
        mcp_url: Where the MCP server is.
        port: Where the browser comes back to, on 127.0.0.1; 0 for a free port.
        timeout: Seconds the person has.

    Returns:
        The token endpoint that the refresh token is for.

    Raises:
        OctogenMCPAuthenticationError: The login did not succeed.
        OctogenConnectionError: The MCP server or the login does not answer.
        ValueError: The URL is not one that a token may be sent to.
        OSError: The port is taken.
    """
    requiring_mcp()
    checked_url(mcp_url, "The MCP URL")
    with refresh_token_file.locked():
        pass  # better known before somebody has logged in
    files = _Files(refresh_token_file, client_id_file)
    failure: OctogenError
    try:
        return asyncio.run(_login(mcp_url, files, show, port, timeout))
    except Exception as error:
        found = _explained(mcp_url, files, list(leaves(error)))
        if found is None:
            raise
        failure = found
    raise failure  # here, where no traceback leads to the request


async def _login(
    mcp_url: str, files: _Files, show: Callable[[str], None], port: int, seconds: float
) -> str:
    import httpx2
    from mcp import Client
    from mcp.client.auth import OAuthClientProvider
    from mcp.client.streamable_http import streamable_http_client
    from mcp.shared.auth import OAuthClientMetadata
    from pydantic import AnyUrl

    async def send_to(url: str) -> None:
        found = provider.context.oauth_metadata
        try:
            checked_url(url.partition("?")[0], "The login page")
            checked_url(str(found.token_endpoint) if found else "", "The token endpoint")
        except ValueError as error:
            raise OctogenMCPAuthenticationError(
                f"Octogen's MCP at {mcp_url} names a login that cannot be trusted. {error}"
            ) from None
        await browser.send_to(url, show)

    async with _listening(port, seconds) as browser:
        provider = OAuthClientProvider(
            mcp_url,
            OAuthClientMetadata(
                client_name="octogen-dagster",
                redirect_uris=[AnyUrl(browser.address)],
                token_endpoint_auth_method="none",  # noqa: S106
            ),
            files,
            redirect_handler=send_to,
            callback_handler=browser.answer,
        )
        async with (
            httpx2.AsyncClient(
                auth=provider, timeout=_REQUEST_TIMEOUT, trust_env=may_use_proxy(mcp_url)
            ) as http,
            Client(streamable_http_client(mcp_url, http_client=http), mode="legacy", cache=None),
        ):
            pass
    metadata = provider.context.oauth_metadata
    if not files.written or metadata is None:
        raise OctogenMCPAuthenticationError(
            f"Octogen's MCP at {mcp_url} asked for no login: check the address."
        )
    return str(metadata.token_endpoint)


class _Files:
    """What the login leaves, as the `mcp` package's token storage."""

    def __init__(self, refresh_token: SecretFile, client_id: SecretFile) -> None:
        self._refresh_token = refresh_token
        self._client_id = client_id
        self._client: OAuthClientInformationFull | None = None
        self._tokens: list[str] = []
        self.written = False

    def masked(self, text: str) -> str:
        """The text without the tokens that were given."""
        for token in self._tokens:
            text = text.replace(token, "[token]")
        return text

    async def get_tokens(self) -> OAuthToken | None:
        return None

    async def get_client_info(self) -> OAuthClientInformationFull | None:
        return self._client

    async def set_client_info(self, client_info: OAuthClientInformationFull) -> None:
        if client_info.client_secret:
            raise OctogenMCPAuthenticationError(
                "The login registered a client with a secret, and a public one is needed: report "
                "it to Octogen."
            )
        self._client = client_info

    async def set_tokens(self, tokens: OAuthToken) -> None:
        self._tokens = [token for token in (tokens.access_token, tokens.refresh_token) if token]
        refresh_token = secret(tokens.refresh_token)
        client_id = secret(self._client.client_id if self._client else None)
        if refresh_token is None or client_id is None:
            raise OctogenMCPAuthenticationError(
                "The login gave no refresh token, so it would last for minutes only: ask Octogen "
                "for offline access."
            )
        with self._refresh_token.locked():
            self._client_id.write(client_id)
            self._refresh_token.write(refresh_token)
        self.written = True


class _Browser:
    """The browser of the person who logs in: is sent to the login page, and comes back."""

    def __init__(self, seconds: float) -> None:
        self.address = ""
        self._seconds = seconds
        self._state: str | None = None
        self._came_back: asyncio.Future[dict[str, str]] = asyncio.Future()
        self._visits: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    async def send_to(self, url: str, show: Callable[[str], None]) -> None:
        self._state = _parameters(url).get("state")
        await asyncio.to_thread(show, url)

    async def answer(self) -> AuthorizationCodeResult:
        from mcp.shared.auth import AuthorizationCodeResult

        try:
            async with timeout(self._seconds):
                parameters = await self._came_back
        except asyncio.TimeoutError:
            raise OctogenMCPAuthenticationError(
                f"Nobody logged in within {self._seconds:g} s: run `octogen-mcp-login` again."
            ) from None
        if "code" not in parameters:
            reason = ": ".join(
                parameters[name] for name in ("error", "error_description") if name in parameters
            )
            raise OctogenMCPAuthenticationError(
                f"The login was refused ({reason[:_MAX_REASON_LENGTH] or 'no reason given'})."
            )
        return AuthorizationCodeResult.model_validate(parameters)

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request; only the one that comes from the login page counts."""
        visit = asyncio.current_task()
        assert visit is not None
        self._visits[visit] = writer
        try:
            with contextlib.suppress(OSError, ValueError, asyncio.IncompleteReadError):
                await self._answer_request(reader, writer)
        finally:
            del self._visits[visit]
            writer.close()

    async def _answer_request(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        async with timeout(_REQUEST_TIMEOUT):
            line = (await reader.readline()).decode("latin-1")
            while (await reader.readline()).strip():
                pass
        target = [*line.split(" "), ""][1]
        parameters = _parameters(target)
        known = self._state is not None and parameters.get("state") == self._state
        counts = target.startswith(f"{_PATH}?") and known
        body = b"Octogen has your answer: this window can be closed." if counts else b"Not found."
        status = "200 OK" if counts else "404 Not Found"
        head = f"HTTP/1.1 {status}\r\nContent-Type: text/plain\r\n"
        writer.write(f"{head}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode())
        writer.write(body)
        await writer.drain()
        if counts and not self._came_back.done():
            self._came_back.set_result(parameters)

    async def leave(self) -> None:
        """End the visits that are not over: a browser opens connections it may never use."""
        visits = dict(self._visits)
        for writer in visits.values():
            writer.transport.abort()
        await asyncio.gather(*visits, return_exceptions=True)


@contextlib.asynccontextmanager
async def _listening(port: int, seconds: float) -> AsyncIterator[_Browser]:
    browser = _Browser(seconds)
    server = await asyncio.start_server(browser.handle, _HOST, port)
    browser.address = f"http://{_HOST}:{server.sockets[0].getsockname()[1]}{_PATH}"
    try:
        yield browser
    finally:
        server.close()  # leaving `async with server` would wait for open connections
        await browser.leave()


def _parameters(url: str) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}


def _explained(mcp_url: str, files: _Files, failures: list[BaseException]) -> OctogenError | None:
    """The error that the failures of a login stand for, if they are not a mistake of ours."""
    import httpx2
    from mcp.client.auth import OAuthFlowError
    from mcp.shared.exceptions import MCPError

    for failure in failures:
        if isinstance(failure, OctogenError):
            return type(failure)(str(failure))  # without its traceback, which leads to tokens
        if isinstance(failure, httpx2.HTTPError):
            return OctogenConnectionError(
                f"The login to Octogen's MCP at {mcp_url} got no answer "
                f"({type(failure).__name__}): check the address and the network."
            )
        if isinstance(failure, OAuthFlowError | MCPError):
            reason = files.masked(_without_answer(failure)) or type(failure).__name__
            return OctogenMCPAuthenticationError(
                f"The login to Octogen's MCP at {mcp_url} failed ({reason}): check the address, "
                "then try again."
            )
    return None


def _without_answer(failure: OAuthFlowError | MCPError) -> str:
    """What the `mcp` package says, without the answer that it quotes, which may hold tokens."""
    from mcp.client.auth import OAuthRegistrationError, OAuthTokenError

    said = " ".join(str(failure).split())
    if isinstance(failure, OAuthTokenError | OAuthRegistrationError):
        said, _, answer = said.partition(": ")
        status = answer[:3]
        return f"{said}: {status}" if status.isdigit() else said
    return said[:_MAX_REASON_LENGTH].rstrip(".")
