"""Octogen's MCP tools for shared catalogs, as typed calls."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Any, TypeVar

import msgspec
from typing_extensions import Self

from octogen_dagster.api.retry import RetryPolicy
from octogen_dagster.control_plane.session import McpSession
from octogen_dagster.control_plane.tokens import DEFAULT_RETRY, DEFAULT_TIMEOUT, AccessTokens
from octogen_dagster.errors import OctogenMCPError

_SHARE_SCHEMA = "exported_product_view"
_SCHEMA_VERSION = "v1"
_T = TypeVar("_T")


class SharedListing(msgspec.Struct, rename="camel", frozen=True):
    """A listing that Octogen shares. What Octogen did not send is None."""

    catalog_key: str | None = None
    listing_resource: str | None = None
    linked_dataset: str | None = msgspec.field(default=None, name="linkedDatasetSuggestion")
    location: str | None = None
    sample_query: str | None = None


class Cell(SharedListing, rename="camel", frozen=True):
    """The state of one catalog for one subscriber. It has no listing until there is one.

    `status` is `preparing`, `awaiting_subscription`, `active`, `source_stale`, `refresh_failed`,
    `access_grant_failed`, `removing`, or a status that is newer than this package.
    """

    subscriber_id: str | None = None
    status: str | None = None
    reason_code: str | None = None
    share_schema: str | None = None
    schema_version: str | None = None


class Subscriber(msgspec.Struct, rename="camel", frozen=True):
    """A principal that reads shared catalogs from a project of its own.

    `desired_state` is `enabled`, or another word if Octogen does not serve the subscriber.
    """

    subscriber_id: str | None = None
    project: str | None = msgspec.field(default=None, name="subscriberProjectId")
    principal: str | None = msgspec.field(default=None, name="subscriberPrincipal")
    desired_state: str | None = None


class _Subscribers(msgspec.Struct):
    subscribers: list[Subscriber] | None = None
    cells: list[Cell] | None = None


class _Registered(msgspec.Struct):
    subscriber: Subscriber
    cells: list[Cell] | None = None


class OctogenMCP:
    """Octogen's control plane over MCP. Use it in a `with`, or call `close()`."""

    def __init__(
        self,
        tokens: AccessTokens,
        url: str,
        *,
        timeout: float = DEFAULT_TIMEOUT,
        retry: RetryPolicy = DEFAULT_RETRY,
    ) -> None:
        self._session = McpSession(tokens, url, timeout=timeout, retry=retry)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        self._session.close()

    def listings(self, catalogs: Sequence[str] = ()) -> list[SharedListing]:
        """Return the listings that are shared with the organisation, or those of some catalogs.

        A catalog that is not granted has none.
        """
        tool = "list_bigquery_listing_resources"
        arguments = {"catalogs": list(catalogs)} if catalogs else {}
        try:
            value = self._session.call(tool, arguments)
        except OctogenMCPError as error:
            if error.code != "catalog_not_granted":
                raise
            # One catalog that is not granted fails the call for all that are named.
            value = self._session.call(tool, {})
        listings = _converted(tool, value, list[SharedListing])
        return [each for each in listings if not catalogs or each.catalog_key in catalogs]

    def subscribers(self) -> tuple[list[Subscriber], list[Cell]]:
        """Return the subscribers of the organisation, and the cells of all of them."""
        tool = "list_bigquery_subscribers"
        found = _converted(tool, self._session.call(tool, {}), _Subscribers)
        return found.subscribers or [], found.cells or []

    def register(self, project: str, principal: str) -> tuple[Subscriber, list[Cell]]:
        """Register a principal that subscribes, and return the subscriber with its cells."""
        tool = "register_bigquery_subscriber"
        request = {"subscriberProjectId": project, "subscriberPrincipal": principal}
        value = self._session.call(tool, {"request": request}, repeatable=False)
        registered = _converted(tool, value, _Registered)
        return registered.subscriber, registered.cells or []

    def refresh_status(
        self,
        catalog_key: str,
        principal: str,
        *,
        share_schema: str | None = None,
        schema_version: str | None = None,
    ) -> Cell:
        """Let Octogen look at a catalog's subscription again, and return its cell.

        Schema and version are those that the cell names. Octogen may send no more of the new cell
        than the catalog and the status.
        """
        tool = "refresh_bigquery_subscription_status"
        arguments = {
            "catalog_key": catalog_key,
            "subscriber_principal": principal,
            "share_schema": share_schema or _SHARE_SCHEMA,
            "schema_version": schema_version or _SCHEMA_VERSION,
        }
        return _converted(tool, self._session.call(tool, arguments), Cell)


def _converted(tool: str, value: Any, kind: type[_T]) -> _T:
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:  # it names types and places, no values
        raise OctogenMCPError(
            f"Octogen's MCP tool {tool} answered with another type than it should ({error}): "
            "report it to Octogen."
        ) from None
