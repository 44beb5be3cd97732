"""The local web server that the browser returns to after a login."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

from octogen_dagster.errors import OctogenMCPAuthenticationError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from mcp.shared.auth import AuthorizationCodeResult

_HOST = "127.0.0.1"
_REQUEST_TIMEOUT = 30.0
_MAX_REASON_LENGTH = 300


class LoginCallback:
    """The web server of one login; `listening` starts it.

    Attributes:
        redirect_uri: The URL that the login page redirects the browser to.
    """

    def __init__(self, redirect_uri: str) -> None:
        self.redirect_uri = redirect_uri
        self._state: str | None = None
        self._parameters: asyncio.Future[dict[str, str]] = asyncio.Future()
        self._requests: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    def expect(self, login_page: str) -> None:
        """Accept the redirect of this login only, which is known by its `state` parameter.

        Args:
            login_page: The URL that the person opens.
        """
        self._state = _query(login_page).get("state")

    async def wait(self, seconds: float) -> AuthorizationCodeResult:
        """Wait for the browser and return the authorization code that it brings.

        Args:
            seconds: Seconds to wait.

        Raises:
            OctogenMCPAuthenticationError: The browser does not come in time, or the login was
                refused.
        """
        import anyio
        from mcp.shared.auth import AuthorizationCodeResult

        try:
            with anyio.fail_after(seconds):
                parameters = await self._parameters
        except TimeoutError:
            raise OctogenMCPAuthenticationError(
                f"Nobody logged in within {seconds:g} s: run `octogen-dagster login` again."
            ) from None
        if "code" not in parameters:
            reason = ": ".join(
                parameters[name] for name in ("error", "error_description") if name in parameters
            )
            raise OctogenMCPAuthenticationError(
                f"The login was refused ({reason[:_MAX_REASON_LENGTH] or 'no reason given'}): log "
                "in again and agree, or ask Octogen for access."
            )
        return AuthorizationCodeResult.model_validate(parameters)

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Respond to one request."""
        task = asyncio.current_task()
        assert task is not None
        self._requests[task] = writer
        try:
            with contextlib.suppress(OSError, ValueError, asyncio.IncompleteReadError):
                await self._respond(reader, writer)
        finally:
            del self._requests[task]
            writer.close()

    async def _respond(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        target = await _read_target(reader)
        parameters = _query(target)
        is_expected = self._state is not None and parameters.get("state") == self._state
        path = urlsplit(self.redirect_uri).path
        is_callback = is_expected and target.startswith(f"{path}?")
        if is_callback:
            writer.write(_response("200 OK", "Octogen has your answer: this window can be closed."))
        else:
            writer.write(_response("404 Not Found", "Not found."))
        await writer.drain()
        if is_callback and not self._parameters.done():
            self._parameters.set_result(parameters)

    async def abort_requests(self) -> None:
        """End the requests that are not done: browsers open connections that they never use."""
        requests = dict(self._requests)
        for writer in requests.values():
            writer.transport.abort()
        await asyncio.gather(*requests, return_exceptions=True)


@contextlib.asynccontextmanager
async def listening(redirect_uri: str) -> AsyncIterator[LoginCallback]:
    """Run the web server while the block runs.

    Args:
        redirect_uri: The URL on this machine that the browser returns to; port 0 for a free one.

    Raises:
        ValueError: The URL is not one of this machine.
        OSError: The port is taken.
    """
    host, port, path = _split_redirect_uri(redirect_uri)
    callback = LoginCallback(redirect_uri)
    server = await asyncio.start_server(callback.handle, _HOST, port)
    callback.redirect_uri = f"http://{host}:{server.sockets[0].getsockname()[1]}{path}"
    try:
        yield callback
    finally:
        server.close()  # leaving `async with server` would wait for open connections
        await callback.abort_requests()


def _split_redirect_uri(redirect_uri: str) -> tuple[str, int, str]:
    """Return the host, the port and the path."""
    problem = ValueError(
        f"The redirect URI {redirect_uri!r} is not one of this machine: give "
        "http://127.0.0.1:PORT/PATH or http://localhost:PORT/PATH."
    )
    try:
        parts = urlsplit(redirect_uri)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise problem from None
    is_here = parts.scheme == "http" and host in (_HOST, "localhost")
    if not is_here or host is None or port is None or not parts.path or parts.query:
        raise problem
    return host, port, parts.path


async def _read_target(reader: asyncio.StreamReader) -> str:
    """Read a request to the end of its headers and return the target of its first line."""
    import anyio

    with anyio.fail_after(_REQUEST_TIMEOUT):
        line = (await reader.readline()).decode("latin-1")
        while (await reader.readline()).strip():
            pass
    return [*line.split(" "), ""][1]


def _response(status: str, text: str) -> bytes:
    body = text.encode()
    headers = f"Content-Type: text/plain\r\nContent-Length: {len(body)}\r\nConnection: close\r\n"
    return f"HTTP/1.1 {status}\r\n{headers}\r\n".encode() + body


def _query(url: str) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}
