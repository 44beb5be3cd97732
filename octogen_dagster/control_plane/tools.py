"""Octogen's MCP tools for shared catalogs, as typed calls."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from typing_extensions import Self

from octogen_dagster.control_plane.retry import DEFAULT_RETRY, DEFAULT_TIMEOUT
from octogen_dagster.control_plane.session import McpSession
from octogen_dagster.errors import OctogenMCPError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType

    from octogen_dagster.api.retry import RetryPolicy
    from octogen_dagster.control_plane.tokens import AccessTokens

_SHARE_SCHEMA = "exported_product_view"
_SCHEMA_VERSION = "v1"


@dataclass(frozen=True, slots=True)
class SharedListing:
    """A listing that Octogen shares. An attribute that Octogen did not send is None.

    Attributes:
        catalog_key: The key of the catalog.
        listing_resource: The resource name of the listing.
        linked_dataset: The id that Octogen suggests for the linked dataset.
        location: The BigQuery location.
        sample_query: A query to try on the linked dataset.
    """

    catalog_key: str | None
    listing_resource: str | None = None
    linked_dataset: str | None = None
    location: str | None = None
    sample_query: str | None = None

    @classmethod
    def parse(cls, value: Any) -> Self:
        """Parse a value of a tool. A field that is missing or of another type becomes None."""
        fields = value if isinstance(value, dict) else {}
        return cls(
            catalog_key=_text(fields, "catalogKey"),
            listing_resource=_text(fields, "listingResource"),
            linked_dataset=_text(fields, "linkedDatasetSuggestion"),
            location=_text(fields, "location"),
            sample_query=_text(fields, "sampleQuery"),
        )


@dataclass(frozen=True, slots=True)
class Cell:
    """The state of one catalog for one subscriber. An attribute that Octogen did not send is None.

    Attributes:
        subscriber_id: Octogen's id of the subscriber.
        listing: The listing of the catalog; its attributes are None until there is one.
        status: `preparing`, `awaiting_subscription`, `active`, `source_stale`, `refresh_failed`,
            `access_grant_failed`, `removing`, or a status that is newer than this package.
        reason_code: Octogen's reason for the status, if it gives one.
        share_schema: The schema of the share.
        schema_version: The version of this schema.
    """

    subscriber_id: str | None
    listing: SharedListing
    status: str | None
    reason_code: str | None
    share_schema: str | None = None
    schema_version: str | None = None

    @classmethod
    def parse(cls, value: Any) -> Self:
        """Parse a value of a tool. A field that is missing or of another type becomes None."""
        fields = value if isinstance(value, dict) else {}
        return cls(
            subscriber_id=_text(fields, "subscriberId"),
            listing=SharedListing.parse(fields),
            status=_text(fields, "status"),
            reason_code=_text(fields, "reasonCode"),
            share_schema=_text(fields, "shareSchema"),
            schema_version=_text(fields, "schemaVersion"),
        )


@dataclass(frozen=True, slots=True)
class Subscriber:
    """A principal that reads shared catalogs from a project of its own.

    An attribute that Octogen did not send is None.

    Attributes:
        subscriber_id: Octogen's id of the subscriber.
        project: The project that linked datasets are created in.
        principal: The IAM principal, as `serviceAccount:reader@….iam.gserviceaccount.com`.
        desired_state: `enabled`, or another word if Octogen does not serve the subscriber.
    """

    subscriber_id: str | None
    project: str | None
    principal: str | None
    desired_state: str | None

    @classmethod
    def parse(cls, value: Any) -> Self:
        """Parse a value of a tool. A field that is missing or of another type becomes None."""
        fields = value if isinstance(value, dict) else {}
        return cls(
            subscriber_id=_text(fields, "subscriberId"),
            project=_text(fields, "subscriberProjectId"),
            principal=_text(fields, "subscriberPrincipal"),
            desired_state=_text(fields, "desiredState"),
        )


class OctogenMCP:
    """Octogen's control plane over MCP. Use it in a `with`, or call `close()`.

    Args:
        tokens: The source of access tokens.
        url: The URL of the MCP server.
        timeout: Seconds for one request.
        retry: How a call is retried.

    Raises:
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
        """Close the connection, if there is one."""
        self._session.close()

    def listings(self, catalogs: Sequence[str] = ()) -> list[SharedListing]:
        """Return the listings that are shared with the organisation.

        Args:
            catalogs: Only the listings of these catalogs, without those that are not granted; by
                default all.
        """
        tool = "list_bigquery_listing_resources"
        try:
            value = self._session.call(tool, {"catalogs": list(catalogs)} if catalogs else {})
        except OctogenMCPError as error:
            if error.code != "catalog_not_granted":
                raise
            value = None
        if value is None:  # one catalog that is not granted fails the call for all that are named
            value = self._session.call(tool, {})
        listings = [SharedListing.parse(entry) for entry in _list(tool, value)]
        return [each for each in listings if not catalogs or each.catalog_key in catalogs]

    def subscribers(self) -> tuple[list[Subscriber], list[Cell]]:
        """Return the subscribers of the organisation, and the cells of all of them."""
        tool = "list_bigquery_subscribers"
        value = self._session.call(tool, {})
        entries = _optional_list(tool, value, "subscribers")
        cells = _optional_list(tool, value, "cells")
        return [Subscriber.parse(entry) for entry in entries], [Cell.parse(cell) for cell in cells]

    def register(self, project: str, principal: str) -> tuple[Subscriber, list[Cell]]:
        """Register a subscriber, and return it with its cells.

        Args:
            project: The project that linked datasets are created in.
            principal: The IAM principal that subscribes.
        """
        tool = "register_bigquery_subscriber"
        request = {"subscriberProjectId": project, "subscriberPrincipal": principal}
        value = self._session.call(tool, {"request": request}, repeatable=False)
        subscriber = _object(tool, _object(tool, value).get("subscriber"))
        cells = _optional_list(tool, value, "cells")
        return Subscriber.parse(subscriber), [Cell.parse(cell) for cell in cells]

    def refresh_status(
        self,
        catalog_key: str,
        principal: str,
        *,
        share_schema: str | None = None,
        schema_version: str | None = None,
    ) -> Cell:
        """Let Octogen look at a catalog's subscription again, and return its cell.

        Octogen may send no more of the cell than the catalog and the status.

        Args:
            catalog_key: The catalog.
            principal: The IAM principal that subscribed.
            share_schema: The schema of the share, as the cell names it.
            schema_version: The version of this schema.
        """
        tool = "refresh_bigquery_subscription_status"
        value = self._session.call(
            tool,
            {
                "catalog_key": catalog_key,
                "subscriber_principal": principal,
                "share_schema": share_schema or _SHARE_SCHEMA,
                "schema_version": schema_version or _SCHEMA_VERSION,
            },
        )
        return Cell.parse(_object(tool, value))


def _optional_list(tool: str, value: Any, name: str) -> list[Any]:
    entries = _object(tool, value).get(name)
    return [] if entries is None else _list(tool, entries)


def _list(tool: str, value: Any) -> list[Any]:
    if isinstance(value, list):
        return value
    raise _unexpected_type(tool, value, "a list")


def _object(tool: str, value: Any) -> dict[str, Any]:
    if isinstance(value, dict):
        return value
    raise _unexpected_type(tool, value, "an object")


def _unexpected_type(tool: str, value: Any, wanted: str) -> OctogenMCPError:
    return OctogenMCPError(
        f"Octogen's MCP tool {tool} answered with {type(value).__name__} where {wanted} belongs: "
        "report it to Octogen."
    )


def _text(fields: Mapping[str, Any], name: str) -> str | None:
    value = fields.get(name)
    return value.strip() or None if isinstance(value, str) else None
