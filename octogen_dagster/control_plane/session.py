"""A session with an MCP server for synchronous callers: tool calls, tokens, retries, errors."""

from __future__ import annotations

import contextlib
import json
import logging
import sys
import threading
from typing import TYPE_CHECKING, Any

from octogen_dagster.api.urls import checked_url, may_use_proxy
from octogen_dagster.control_plane.retry import finite_seconds, retrying
from octogen_dagster.errors import (
    OctogenConnectionError,
    OctogenError,
    OctogenMCPAuthenticationError,
    OctogenMCPError,
    OctogenMCPRateLimitError,
    OctogenTimeoutError,
    retry_after_seconds,
)

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping

    import httpx2
    from anyio.from_thread import BlockingPortal
    from mcp import Client
    from mcp.shared.exceptions import MCPError
    from mcp_types import CallToolResult
    from pydantic import SecretStr

    from octogen_dagster.control_plane.tokens import AccessTokens

DEFAULT_MCP_URL = "https://mcp.octogen.ai/mcp/"
_RATE_LIMITED = -32029
_MAX_REASON_LENGTH = 300
_LOGGERS = ("mcp.client.streamable_http", "mcp.shared.jsonrpc_dispatcher", "client")
"""Those of the `mcp` package that quote what was sent and answered."""


class McpSession:
    """Tool calls, over one connection that is made at the first of them.

    A call that fails on the way ends the session; the next one makes a new one.

    Args:
        tokens: Where access tokens come from; a refused one is replaced once for each call.
        url: Where the server is.
        timeout: Seconds for one request.
        deadline: Seconds for a call with all its tries.

    Raises:
        ValueError: The URL is not one that a token may be sent to.
    """

    def __init__(self, tokens: AccessTokens, url: str, *, timeout: float, deadline: float) -> None:
        self._tokens = tokens
        self._url = checked_url(url, "The MCP URL")
        self._timeout = min(timeout, deadline)
        self._deadline = deadline
        self._wire = _Wire()
        self._open = contextlib.ExitStack()
        self._connection: tuple[BlockingPortal, Client] | None = None
        self._guard = threading.Lock()

    def close(self) -> None:
        """End the session, if there is one."""
        with contextlib.suppress(Exception):  # it may have failed already
            self._disconnect()

    def call(self, tool: str, arguments: Mapping[str, Any], *, repeatable: bool = True) -> Any:
        """The value of a tool.

        Args:
            tool: Its name.
            arguments: Its arguments.
            repeatable: Whether the server may be asked twice when the first answer is lost.

        Raises:
            OctogenMCPAuthenticationError: There is no token, or none that is accepted.
            OctogenMCPError: The answer is not a value.
            OctogenConnectionError: There is no answer.
        """
        with self._guard:
            return retrying(self._deadline, repeatable=repeatable)(self._call, tool, arguments)

    def _call(self, tool: str, arguments: Mapping[str, Any]) -> Any:
        token = self._tokens.token()
        answer = self._asked(tool, arguments, token)
        if isinstance(answer, OctogenMCPAuthenticationError):
            token = self._tokens.token(refused=token)
            answer = self._asked(tool, arguments, token)
        if isinstance(answer, OctogenError):
            raise answer  # here, where no traceback leads to the request
        return answer

    def _asked(self, tool: str, arguments: Mapping[str, Any], token: SecretStr) -> Any:
        """The value of a tool, or what went wrong."""
        self._wire.begin(token)
        failures: list[BaseException] = []
        try:
            portal, client = self._connection or self._connect()
            return _value(tool, portal.call(_call_tool, client, tool, dict(arguments)))
        except OctogenMCPError as error:  # the tool's own
            return OctogenMCPError(self._wire.masked(str(error)))
        except Exception as error:
            failures.append(error)
        try:
            self._disconnect()
        except Exception as error:  # why the connection was lost shows here
            failures.append(error)
        return self._explained(tool, [leaf for error in failures for leaf in leaves(error)])

    def _connect(self) -> tuple[BlockingPortal, Client]:
        requiring_mcp()
        from anyio.from_thread import start_blocking_portal

        with contextlib.ExitStack() as stack:
            stack.enter_context(self._wire.censoring())
            portal = stack.enter_context(start_blocking_portal())
            opened = portal.wrap_async_context_manager(
                _opened(self._url, self._wire, self._timeout)
            )
            self._connection = portal, stack.enter_context(opened)
            self._open = stack.pop_all()
            return self._connection

    def _disconnect(self) -> None:
        self._connection = None
        self._open.close()

    def _explained(self, tool: str, failures: list[BaseException]) -> OctogenError:
        import httpx2
        from anyio import BrokenResourceError, ClosedResourceError
        from mcp.shared.exceptions import MCPError
        from mcp_types import CONNECTION_CLOSED, REQUEST_TIMEOUT
        from pydantic import ValidationError

        subject = f"Octogen's MCP at {self._url}, asked for {tool},"
        answers = [error for error in failures if isinstance(error, MCPError)]
        codes = {error.code for error in answers}
        causes = [error for error in failures if not isinstance(error, MCPError)]
        if REQUEST_TIMEOUT in codes or any(
            isinstance(error, httpx2.TimeoutException) for error in causes
        ):
            return OctogenTimeoutError(
                f"{subject} did not answer within {self._timeout:g} s: try again later."
            )
        if answers and CONNECTION_CLOSED not in codes:
            return self._refusal(subject, answers[0])
        for error in causes:
            if isinstance(error, ValidationError):
                return OctogenMCPError(
                    f"{subject} gave a result that is none of MCP: report it to Octogen."
                )
            if not isinstance(error, httpx2.HTTPError | BrokenResourceError | ClosedResourceError):
                raise error
        reason = type(causes[0]).__name__ if causes else "the connection was closed"
        return OctogenConnectionError(
            f"{subject} did not answer ({reason}): check the address and the network."
        )

    def _refusal(self, subject: str, error: MCPError) -> OctogenError:
        """The error that an answer other than a result stands for."""
        status, retry_after = self._wire.status, self._wire.retry_after
        reason = self._wire.masked(" ".join(error.message.split()))[:_MAX_REASON_LENGTH].rstrip(".")
        if error.code == _RATE_LIMITED:
            data = error.data if isinstance(error.data, dict) else {}
            wait = finite_seconds(data.get("retry_after"))
            seconds = 1.0 if wait is None or wait < 0 else wait
            return OctogenMCPRateLimitError(
                f"{subject} refused: the organisation's request budget is spent ({reason}). Try "
                f"again in {seconds:g} s.",
                retry_after=seconds,
            )
        if status == 401:
            return OctogenMCPAuthenticationError(
                f"{subject} refused the access token (401): get a new one, or run "
                "`octogen-mcp-login` again."
            )
        if status == 429 or status >= 500:
            kind = OctogenMCPRateLimitError if status == 429 else OctogenMCPError
            return kind(
                f"{subject} failed with {status}: try again later.", retry_after=retry_after or 0.0
            )
        if status >= 400:
            return OctogenMCPError(
                f"{subject} refused with {status} ({reason}): check the address of the MCP server, "
                "and that the login may use it."
            )
        return OctogenMCPError(
            f"{subject} gave no result ({error.code}: {reason}): check the address of the MCP "
            "server, or report it to Octogen."
        )


def requiring_mcp() -> None:
    """Import the package `mcp`.

    Raises:
        OctogenMCPError: It is not installed.
    """
    try:
        import mcp  # noqa: F401
    except ModuleNotFoundError as error:
        raise OctogenMCPError(
            f"Octogen's MCP needs {error.name}: pip install 'octogen-dagster[mcp]'."
        ) from None


class _Wire(logging.Filter):
    """What is put on requests, remembered of answers, and kept out of the `mcp` package's log."""

    token: SecretStr
    status: int
    retry_after: float | None

    def begin(self, token: SecretStr) -> None:
        self.token, self.status, self.retry_after = token, 0, None

    async def authorize(self, request: httpx2.Request) -> None:
        request.headers["Authorization"] = f"Bearer {self.token.get_secret_value()}"

    async def note(self, response: httpx2.Response) -> None:
        import httpx

        if response.request.method == "POST":
            self.status = response.status_code
            self.retry_after = retry_after_seconds(httpx.Headers(dict(response.headers)))

    def masked(self, text: str) -> str:
        return text.replace(self.token.get_secret_value(), "[access token]")

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = self.masked(record.getMessage()), None
        # A traceback quotes parts of answers. What it is about, the error of the call says.
        record.exc_info = record.exc_text = None
        return True

    @contextlib.contextmanager
    def censoring(self) -> Iterator[None]:
        """Mask what the `mcp` package logs."""
        loggers = [logging.getLogger(name) for name in _LOGGERS]
        for logger in loggers:
            logger.addFilter(self)
        try:
            yield
        finally:
            for logger in loggers:
                logger.removeFilter(self)


@contextlib.asynccontextmanager
async def _opened(url: str, wire: _Wire, seconds: float) -> AsyncIterator[Client]:
    import httpx2
    from mcp import Client
    from mcp.client.streamable_http import streamable_http_client

    async with (
        httpx2.AsyncClient(
            timeout=seconds,
            trust_env=may_use_proxy(url),
            event_hooks={"request": [wire.authorize], "response": [wire.note]},
        ) as http,
        Client(
            streamable_http_client(url, http_client=http),
            # Octogen speaks 2025-06-18; the probe for a newer protocol would be one request more.
            mode="legacy",
            read_timeout_seconds=seconds,
            cache=None,
        ) as client,
    ):
        yield client


async def _call_tool(client: Client, tool: str, arguments: dict[str, Any]) -> CallToolResult:
    from mcp_types import CallToolRequest, CallToolRequestParams, CallToolResult

    # `Client.call_tool` asks for the tool's schema after the call, and loses the result of a call
    # that was carried out when that fails.
    params = CallToolRequestParams(name=tool, arguments=arguments)
    return await client.session.send_request(CallToolRequest(params=params), CallToolResult)


def _value(tool: str, result: CallToolResult) -> Any:
    """The value in a result.

    Raises:
        OctogenMCPError: The tool failed, or its value cannot be read.
    """
    text = "\n".join(block.text for block in result.content if block.type == "text")
    value = result.structured_content
    if isinstance(value, dict) and "result" in value:
        value = value["result"]
    if result.is_error:
        value = {"error": text}
    elif value is None:
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            raise OctogenMCPError(
                f"Octogen's MCP tool {tool} answered with something that is not JSON: report it "
                "to Octogen."
            ) from None
    if isinstance(value, dict) and value.get("error"):
        said = ": ".join(str(value[key]) for key in ("error", "message") if value.get(key))
        raise OctogenMCPError(
            f"Octogen's MCP tool {tool} failed: {' '.join(said.split())[:_MAX_REASON_LENGTH]}."
        )
    return value


def leaves(error: BaseException) -> Iterator[BaseException]:
    """The errors in a group of them, or the error itself."""
    if isinstance(error, BaseExceptionGroup):
        for part in error.exceptions:
            yield from leaves(part)
    else:
        yield error
