"""A synchronous, typed client for Octogen's MCP tools that manage shared catalogs."""

from __future__ import annotations

import contextlib
import functools
import json
import threading
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self, TypeVar

import msgspec

from octogen_dagster.api.credentials import checked_url, may_use_proxy
from octogen_dagster.api.http import retry_after_seconds
from octogen_dagster.background import Deadline
from octogen_dagster.control_plane.tokens import DEFAULT_TIMEOUT, AccessToken, with_retries
from octogen_dagster.errors import (
    OctogenConnectionError,
    OctogenError,
    OctogenMCPAuthenticationError,
    OctogenMCPError,
    OctogenMCPRateLimitError,
    OctogenTimeoutError,
)
from octogen_dagster.validation import require_extras

if TYPE_CHECKING:
    import httpx2
    from anyio.from_thread import BlockingPortal
    from mcp import Client
    from mcp.shared.exceptions import MCPError
    from mcp_types import CallToolResult
    from pydantic import SecretStr

_SHARE_SCHEMA = "exported_product_view"
_SCHEMA_VERSION = "v1"
_RATE_LIMITED = -32029
_DEFAULT_RATE_LIMIT_SECONDS = 1.0
_MAX_REASON_LENGTH = 300
_T = TypeVar("_T")


class SharedListing(msgspec.Struct, rename="camel", frozen=True):
    """A listing that Octogen shares. Fields that are missing in the response are None."""

    catalog_key: str | None = None
    listing_resource: str | None = None
    linked_dataset: str | None = msgspec.field(default=None, name="linkedDatasetSuggestion")
    location: str | None = None
    sample_query: str | None = None


class Cell(SharedListing, rename="camel", frozen=True):
    """The state of a catalog for one subscriber.

    `listing` is None until Octogen has created the listing. `status` is `preparing`,
    `awaiting_subscription`, `active`, `source_stale`, `refresh_failed`, `access_grant_failed`,
    `removing`, or a status that was introduced after this package was released.
    """

    subscriber_id: str | None = None
    status: str | None = None
    reason_code: str | None = None
    share_schema: str | None = None
    schema_version: str | None = None


class Subscriber(msgspec.Struct, rename="camel", frozen=True):
    """A principal, and the Google Cloud project from which the principal reads shared catalogs.

    `desired_state` is `enabled`, or another value if Octogen does not serve the subscriber.
    """

    subscriber_id: str | None = None
    project: str | None = msgspec.field(default=None, name="subscriberProjectId")
    principal: str | None = msgspec.field(default=None, name="subscriberPrincipal")
    desired_state: str | None = None

    @property
    def is_enabled(self) -> bool:
        """True if Octogen serves the subscriber."""
        return self.desired_state in (None, "enabled")


class _Subscribers(msgspec.Struct):
    subscribers: list[Any] | None = None
    cells: list[Any] | None = None


class _Registered(msgspec.Struct):
    subscriber: dict[str, Any]
    cells: list[Any] | None = None


class OctogenMCP:
    """Client for Octogen's control plane over MCP, for use in a `with` statement.

    The first call opens a connection. A failed call closes the connection, and the next call opens
    a new one. If a token is rejected, the call is repeated once with a new token.
    """

    def __init__(
        self,
        access_token: AccessToken,
        url: str,
        *,
        timeout: float = DEFAULT_TIMEOUT,
        deadline: float,
    ) -> None:
        require_extras("Octogen's MCP", "mcp")
        self._access_token = access_token
        self._url = checked_url(url, "The MCP URL")
        self._timeout = min(timeout, deadline)
        self._deadline = deadline
        self._exchange = _Exchange()
        self._resources = contextlib.ExitStack()
        self._connection: tuple[BlockingPortal, Client] | None = None
        self._guard = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection = None
        with contextlib.suppress(Exception):  # the connection may have failed already
            self._resources.close()

    def listings(self, catalogs: Sequence[str] = ()) -> list[SharedListing]:
        """Return the listings shared with the organization, or only those for `catalogs`."""
        tool = "list_bigquery_listing_resources"
        arguments = {"catalogs": list(catalogs)} if catalogs else {}
        try:
            value = self._call(tool, arguments)
        except OctogenMCPError as error:
            if error.code != "catalog_not_granted":
                raise
            # A single catalog without a grant fails the call for all catalogs.
            value = self._call(tool, {}) if len(catalogs) > 1 else []
        listings = [_entry(each, SharedListing) for each in _converted(tool, value, list[Any])]
        return [each for each in listings if not catalogs or each.catalog_key in catalogs]

    def subscribers(self) -> tuple[list[Subscriber], list[Cell]]:
        """Return the organization's subscribers, and the state of each of their catalogs."""
        tool = "list_bigquery_subscribers"
        found = _converted(tool, self._call(tool, {}), _Subscribers)
        subscribers = [_entry(each, Subscriber) for each in found.subscribers or ()]
        return subscribers, [_entry(each, Cell) for each in found.cells or ()]

    def register(self, project: str, principal: str) -> tuple[Subscriber, list[Cell]]:
        """Register a principal as a subscriber. Return the subscriber and its catalog states."""
        tool = "register_bigquery_subscriber"
        request = {"subscriberProjectId": project, "subscriberPrincipal": principal}
        value = self._call(tool, {"request": request}, repeatable=False)
        registered = _converted(tool, value, _Registered)
        cells = [_entry(each, Cell) for each in registered.cells or ()]
        return _entry(registered.subscriber, Subscriber), cells

    def refresh_status(
        self,
        catalog_key: str,
        principal: str,
        *,
        share_schema: str | None = None,
        schema_version: str | None = None,
    ) -> Cell:
        """Ask Octogen to check a catalog's subscription again, and return the updated state.

        Pass the schema and version from the cell. The updated cell might contain only the
        catalog and the status.
        """
        tool = "refresh_bigquery_subscription_status"
        arguments = {
            "catalog_key": catalog_key,
            "subscriber_principal": principal,
            "share_schema": share_schema or _SHARE_SCHEMA,
            "schema_version": schema_version or _SCHEMA_VERSION,
        }
        return _entry(_converted(tool, self._call(tool, arguments), dict[str, Any]), Cell)

    def _call(self, tool: str, arguments: Mapping[str, Any], *, repeatable: bool = True) -> Any:
        """Call a tool and return its value. Set `repeatable` to False if a retry is unsafe."""
        with self._guard:
            # One call at a time: `_exchange` holds a single token and status.
            within = Deadline.after(self._deadline)
            attempt = functools.partial(self._attempt, tool, arguments, within)
            return with_retries(attempt, within, repeatable=repeatable)

    def _attempt(self, tool: str, arguments: Mapping[str, Any], within: Deadline) -> Any:
        token = self._access_token.get(within)
        try:
            return self._request(tool, arguments, token)
        except OctogenMCPAuthenticationError:
            token = self._access_token.get(within, refused=token)
        return self._request(tool, arguments, token)

    def _request(self, tool: str, arguments: Mapping[str, Any], token: SecretStr) -> Any:
        from mcp_types import CallToolRequest, CallToolRequestParams, CallToolResult

        params = CallToolRequestParams(name=tool, arguments=dict(arguments))
        self._exchange.token, self._exchange.status = token, 0
        failures: list[BaseException] = []
        try:
            portal, client = self._connection or self._connect()
            # `Client.call_tool` requests the tool's schema after the call. If that request fails,
            # the result is lost although the call succeeded.
            send = client.session.send_request
            result = portal.call(send, CallToolRequest(params=params), CallToolResult)
        except Exception as error:
            failures += leaf_errors(error)
        else:
            return _tool_value(tool, result, self._exchange)
        self._connection = None
        try:
            self._resources.close()
        except Exception as error:  # explains why the connection was lost
            failures += leaf_errors(error)
        subject = f"Octogen's MCP tool {tool} at {self._url}"
        # Raised outside the handler: errors from the `mcp` package hold requests with the token.
        raise _call_error(subject, failures, self._exchange, self._timeout)

    def _connect(self) -> tuple[BlockingPortal, Client]:
        from anyio.from_thread import start_blocking_portal

        with contextlib.ExitStack() as stack:
            portal = stack.enter_context(start_blocking_portal())
            client = portal.wrap_async_context_manager(
                open_client(
                    self._url,
                    self._timeout,
                    read_timeout=self._timeout,
                    auth=self._exchange.authorize,
                    event_hooks={"response": [self._exchange.record]},
                )
            )
            self._connection = portal, stack.enter_context(client)
            self._resources = stack.pop_all()
            return self._connection


def _converted(tool: str, value: Any, kind: type[_T]) -> _T:
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:  # names types and places, never values
        raise OctogenMCPError(
            f"Octogen's MCP tool {tool} returned an unexpected type ({error}). Report this to "
            "Octogen."
        ) from None


def _entry(value: Any, kind: type[_T]) -> _T:
    """Convert the text fields in an object, and ignore fields of other types.

    As a result, one malformed entry does not make the whole call fail.
    """
    fields = value if isinstance(value, dict) else {}
    texts = {name: text for name, text in fields.items() if isinstance(text, str)}
    return msgspec.convert(texts, kind)


class _Exchange:
    """The access token and HTTP status of the current call.

    The `mcp` package hides the status of rejected requests.
    """

    token: SecretStr
    status = 0
    headers: Mapping[str, str]

    def authorize(self, request: httpx2.Request) -> httpx2.Request:
        request.headers["Authorization"] = f"Bearer {self.token.get_secret_value()}"
        return request

    async def record(self, response: httpx2.Response) -> None:
        if response.request.method == "POST":  # other requests are not part of a call
            self.status, self.headers = response.status_code, response.headers

    def shown(self, text: str) -> str:
        """Return server text as one short line, with the token masked."""
        masked = text.replace(self.token.get_secret_value(), "[access token]")
        return " ".join(masked.split())[:_MAX_REASON_LENGTH].rstrip(".")


@contextlib.asynccontextmanager
async def open_client(
    url: str, seconds: float, *, read_timeout: float | None = None, **http_options: Any
) -> AsyncIterator[Client]:
    """Open a session with an MCP server.

    `seconds` is the time limit for each network operation, and `read_timeout` is the time limit for
    a response.
    """
    import httpx2
    from mcp import Client
    from mcp.client.streamable_http import streamable_http_client

    async with (
        httpx2.AsyncClient(timeout=seconds, trust_env=may_use_proxy(url), **http_options) as http,
        Client(
            # Do not notify the server when a session ends: that request might hang.
            streamable_http_client(url, http_client=http, terminate_on_close=False),
            # Octogen speaks 2025-06-18. Probing for a newer protocol would cost another request.
            mode="legacy",
            read_timeout_seconds=read_timeout,
            cache=None,
        ) as client,
    ):
        yield client


def _tool_value(tool: str, result: CallToolResult, exchange: _Exchange) -> Any:
    """Return a tool's structured content. Without structured content, parse the text as JSON.

    Raise an error if the tool failed.
    """
    text = "\n".join(block.text for block in result.content if block.type == "text")
    value: Any = result.structured_content
    if isinstance(value, dict) and "result" in value:
        value = value["result"]
    is_json = True
    if value is None:
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            is_json = False
    if isinstance(value, dict) and value.get("error"):
        code, message = exchange.shown(str(value["error"])), str(value.get("message") or "")
        raise _tool_failure(tool, code, exchange.shown(f"{code}: {message}" if message else code))
    if result.is_error:
        raise _tool_failure(tool, None, exchange.shown(text))
    if not is_json:
        raise OctogenMCPError(
            f"Octogen's MCP tool {tool} did not return JSON. Report this to Octogen."
        )
    return value


def _tool_failure(tool: str, code: str | None, reason: str) -> OctogenMCPError:
    if code == "not_authorized":
        return OctogenMCPError(
            f"Octogen's MCP tool {tool} rejected the login ({reason}). The login must belong to an "
            "owner or admin of the organization. Ask one of them to run `octogen-dagster login`.",
            code=code,
        )
    if code == "request_failed":
        return OctogenMCPError(
            f"Octogen's MCP tool {tool} failed because of a Google error ({reason}). Try again "
            "later. If the error persists, contact Octogen.",
            retry_after=0.0,
            code=code,
        )
    return OctogenMCPError(
        f"Octogen's MCP tool {tool} failed: {reason or 'no reason given'}.", code=code
    )


def leaf_errors(error: BaseException) -> Iterator[BaseException]:
    """Yield the errors in an exception group and its nested groups, or else the error itself."""
    if isinstance(error, BaseExceptionGroup):
        for part in error.exceptions:
            yield from leaf_errors(part)
    else:
        yield error


def _call_error(
    subject: str, failures: Sequence[BaseException], exchange: _Exchange, timeout: float
) -> OctogenError:
    """Convert errors from the `mcp` package to an Octogen error.

    Any other exception is a defect in this package and is raised unchanged.
    """
    import httpx2
    from anyio import BrokenResourceError, ClosedResourceError
    from mcp.shared.exceptions import MCPError
    from mcp_types import CONNECTION_CLOSED, REQUEST_TIMEOUT
    from pydantic import ValidationError

    refusals = [error for error in failures if isinstance(error, MCPError)]
    causes = [error for error in failures if not isinstance(error, MCPError)]
    is_timeout = any(error.code == REQUEST_TIMEOUT for error in refusals)
    if is_timeout or any(isinstance(error, httpx2.TimeoutException) for error in causes):
        return OctogenTimeoutError(
            f"{subject} did not respond within {timeout:g} s. Try again later."
        )
    # A lost connection fails the call with this code; the other errors include the cause.
    if refusals and all(error.code != CONNECTION_CLOSED for error in refusals):
        return _refusal(subject, refusals[0], exchange)
    for error in causes:
        if isinstance(error, ValidationError):
            return OctogenMCPError(
                f"{subject} returned an invalid MCP result. Report this to Octogen."
            )
        if not isinstance(error, httpx2.HTTPError | BrokenResourceError | ClosedResourceError):
            raise error
    reason = type(causes[0]).__name__ if causes else "the connection was closed"
    return OctogenConnectionError(
        f"{subject} did not respond ({reason}). Check the URL and the network."
    )


def _refusal(subject: str, error: MCPError, exchange: _Exchange) -> OctogenError:
    """Convert a JSON-RPC error or an HTTP status to an Octogen error."""
    status, reason = exchange.status, exchange.shown(error.message)
    if error.code == _RATE_LIMITED:
        data = error.data if isinstance(error.data, dict) else {}
        asked = data.get("retry_after")
        seconds = asked if isinstance(asked, int | float) else _DEFAULT_RATE_LIMIT_SECONDS
        return OctogenMCPRateLimitError(
            f"{subject} reports that the organization's rate limit is exhausted ({reason}). Try "
            f"again in {seconds:g} s.",
            retry_after=max(0.0, seconds),
        )
    if status == 401:
        return OctogenMCPAuthenticationError(
            f"{subject} rejected the access token (401). Set a new token, or run "
            "`octogen-dagster login` again."
        )
    if status == 429 or status >= 500:
        kind = OctogenMCPRateLimitError if status == 429 else OctogenMCPError
        return kind(
            f"{subject} failed with {status}. Try again later.",
            retry_after=retry_after_seconds(exchange.headers) or 0.0,
        )
    if status >= 400:
        return OctogenMCPError(
            f"{subject} rejected the request with {status} ({reason}). Check the MCP server's URL, "
            "and check that the login has access to this server."
        )
    return OctogenMCPError(
        f"{subject} returned no result ({error.code}: {reason}). Check the MCP server's URL, or "
        "report this to Octogen."
    )
