"""A session with an MCP server, for synchronous callers."""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING, Any

from octogen_dagster.api.credentials import checked_url, may_use_proxy
from octogen_dagster.control_plane.call_errors import call_error, leaf_errors
from octogen_dagster.control_plane.http_exchange import HttpExchange
from octogen_dagster.control_plane.retry import DEFAULT_RETRY, DEFAULT_TIMEOUT, with_retries
from octogen_dagster.control_plane.tool_results import tool_value
from octogen_dagster.errors import (
    OctogenError,
    OctogenMCPAuthenticationError,
    OctogenMCPError,
)
from octogen_dagster.settings import require_extras

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from anyio.from_thread import BlockingPortal
    from mcp import Client
    from mcp_types import CallToolResult
    from pydantic import SecretStr

    from octogen_dagster.api.retry import RetryPolicy
    from octogen_dagster.control_plane.tokens import AccessTokens


class McpSession:
    """Tool calls over one connection, which is opened by the first call.

    A call that fails closes the connection; the next call opens a new one.

    Args:
        tokens: The source of access tokens. A token that is refused is replaced once in each call.
        url: The URL of the server.
        timeout: Seconds for one request.
        retry: How a call is retried.

    Raises:
        MissingPackageError: The package `mcp` is not installed.
        ValueError: The URL is not one that a token may be sent to.
    """

    def __init__(
        self,
        tokens: AccessTokens,
        url: str,
        *,
        timeout: float = DEFAULT_TIMEOUT,
        retry: RetryPolicy = DEFAULT_RETRY,
    ) -> None:
        require_extras("Octogen's MCP", "mcp")
        self._tokens = tokens
        self._url = checked_url(url, "The MCP URL")
        self._timeout = min(timeout, retry.deadline)
        self._retry = retry
        self._exchange = HttpExchange()
        self._resources = contextlib.ExitStack()
        self._connection: tuple[BlockingPortal, Client] | None = None
        self._guard = threading.Lock()

    def close(self) -> None:
        """Close the connection, if there is one."""
        with contextlib.suppress(Exception):  # the connection may have failed already
            self._disconnect()

    def call(self, tool: str, arguments: Mapping[str, Any], *, repeatable: bool = True) -> Any:
        """Call a tool and return its value.

        Args:
            tool: The name of the tool.
            arguments: The arguments of the tool.
            repeatable: True if the server may be asked again when the first response is lost.

        Raises:
            OctogenMCPAuthenticationError: There is no token, or none that the server accepts.
            OctogenMCPError: The response is not a value.
            OctogenConnectionError: There was no response.
        """
        with self._guard:
            return with_retries(
                lambda: self._call(tool, arguments), self._retry, repeatable=repeatable
            )

    def _call(self, tool: str, arguments: Mapping[str, Any]) -> Any:
        token = self._tokens.token()
        result = self._request(tool, arguments, token)
        if isinstance(result, OctogenMCPAuthenticationError):
            token = self._tokens.token(refused=token)
            result = self._request(tool, arguments, token)
        if isinstance(result, OctogenError):
            # Raised here, because the frames of `_request` lead to the token.
            raise result
        return result

    def _request(self, tool: str, arguments: Mapping[str, Any], token: SecretStr) -> Any:
        """Return the value of a tool, or the error that says what went wrong."""
        self._exchange.begin(token)
        failures: list[BaseException] = []
        try:
            portal, client = self._connection or self._connect()
            return tool_value(tool, portal.call(_call_tool, client, tool, dict(arguments)))
        except OctogenMCPError as error:  # the tool failed, the connection is fine
            masked = self._exchange.masked
            code = error.code and masked(error.code)
            return OctogenMCPError(masked(str(error)), error.retry_after, code)
        except Exception as error:
            failures.append(error)
        try:
            self._disconnect()
        except Exception as error:  # it tells why the connection was lost
            failures.append(error)
        return call_error(
            f"Octogen's MCP at {self._url}, asked for {tool},",
            [leaf for error in failures for leaf in leaf_errors(error)],
            self._exchange,
            self._timeout,
        )

    def _connect(self) -> tuple[BlockingPortal, Client]:
        from anyio.from_thread import start_blocking_portal

        with contextlib.ExitStack() as stack:
            portal = stack.enter_context(start_blocking_portal())
            client = portal.wrap_async_context_manager(
                _open_client(self._url, self._exchange, self._timeout)
            )
            self._connection = portal, stack.enter_context(client)
            self._resources = stack.pop_all()
            return self._connection

    def _disconnect(self) -> None:
        self._connection = None
        self._resources.close()


@contextlib.asynccontextmanager
async def _open_client(url: str, exchange: HttpExchange, seconds: float) -> AsyncIterator[Client]:
    import httpx2
    from mcp import Client
    from mcp.client.streamable_http import streamable_http_client

    async with (
        httpx2.AsyncClient(
            timeout=seconds,
            trust_env=may_use_proxy(url),
            event_hooks={"request": [exchange.authorize], "response": [exchange.record]},
        ) as http,
        Client(
            streamable_http_client(url, http_client=http),
            # Octogen speaks 2025-06-18. Probing for a newer protocol would cost one request more.
            mode="legacy",
            read_timeout_seconds=seconds,
            cache=None,
        ) as client,
    ):
        yield client


async def _call_tool(client: Client, tool: str, arguments: dict[str, Any]) -> CallToolResult:
    from mcp_types import CallToolRequest, CallToolRequestParams, CallToolResult

    # `Client.call_tool` requests the schema of the tool after the call. If that fails, it loses
    # the result of a call that was carried out.
    params = CallToolRequestParams(name=tool, arguments=arguments)
    return await client.session.send_request(CallToolRequest(params=params), CallToolResult)
