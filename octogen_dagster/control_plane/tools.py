"""What Octogen knows of the catalogs it shares: listings, subscribers, cells.

`ControlPlane` is what the rest of the package needs of it, `OctogenMCP` the real one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from typing_extensions import Self

from octogen_dagster.control_plane.retry import DEFAULT_DEADLINE
from octogen_dagster.control_plane.session import DEFAULT_MCP_URL, McpSession
from octogen_dagster.control_plane.tokens import DEFAULT_TIMEOUT
from octogen_dagster.errors import OctogenMCPError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType

    from octogen_dagster.control_plane.tokens import AccessTokens

_SHARE_SCHEMA = "exported_product_view"
_SCHEMA_VERSION = "v1"


@dataclass(frozen=True, slots=True)
class SharedListing:
    """A listing as Octogen names it; a part it did not send is None.

    Attributes:
        catalog_key: The catalog.
        listing_resource: The listing's resource name.
        linked_dataset: The dataset id that Octogen suggests.
        location: The BigQuery location.
        sample_query: A first query to the linked dataset.
    """

    catalog_key: str | None
    listing_resource: str | None = None
    linked_dataset: str | None = None
    location: str | None = None
    sample_query: str | None = None

    @classmethod
    def of(cls, value: Any) -> Self:
        """From what a tool answered."""
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
    """One catalog for one subscriber; a part Octogen did not send is None.

    Attributes:
        subscriber_id: The subscriber.
        listing: The catalog's listing; its parts are None until there is one.
        status: `pending`, `awaiting_subscription`, `active`, `source_stale`, `refresh_failed`,
            `access_grant_failed`, or one that is newer than this package.
        reason_code: Why, if there is more to say.
    """

    subscriber_id: str | None
    listing: SharedListing
    status: str | None
    reason_code: str | None

    @classmethod
    def of(cls, value: Any) -> Self:
        """From what a tool answered."""
        fields = value if isinstance(value, dict) else {}
        return cls(
            subscriber_id=_text(fields, "subscriberId"),
            listing=SharedListing.of(fields),
            status=_text(fields, "status"),
            reason_code=_text(fields, "reasonCode"),
        )


@dataclass(frozen=True, slots=True)
class Subscriber:
    """A principal that reads shared catalogs from a project of its own.

    Attributes:
        subscriber_id: Octogen's id of it.
        project: The project that linked datasets are created in.
        principal: The IAM principal, as `serviceAccount:reader@….iam.gserviceaccount.com`.
        desired_state: `enabled`, or another word when Octogen does not serve it.
    """

    subscriber_id: str | None
    project: str | None
    principal: str | None
    desired_state: str | None

    @classmethod
    def of(cls, value: Any) -> Self:
        """From what a tool answered."""
        fields = value if isinstance(value, dict) else {}
        return cls(
            subscriber_id=_text(fields, "subscriberId"),
            project=_text(fields, "subscriberProjectId"),
            principal=_text(fields, "subscriberPrincipal"),
            desired_state=_text(fields, "desiredState"),
        )


class ControlPlane(Protocol):
    """What Octogen can be asked. Every call may raise OctogenMCPError or OctogenConnectionError."""

    def listings(self, catalogs: Sequence[str] = ()) -> list[SharedListing]:
        """The listings of these catalogs, or of all that are shared with the organisation."""

    def subscribers(self) -> tuple[list[Subscriber], list[Cell]]:
        """The organisation's subscribers, and the cells of all of them."""

    def register(self, project: str, principal: str) -> tuple[Subscriber, list[Cell]]:
        """Make a subscriber known; returns it with its cells."""

    def refresh_status(self, catalog_key: str, principal: str) -> Cell:
        """Let Octogen look at a catalog's subscription again."""


class OctogenMCP:
    """Octogen's control plane over MCP. Use it in a `with`, or call `close()`.

    Args:
        tokens: Where access tokens come from.
        url: Where the MCP server is.
        timeout: Seconds for one request.
        deadline: Seconds for a call with all its tries.

    Raises:
        ValueError: The URL is not one that a token may be sent to.
    """

    def __init__(
        self,
        tokens: AccessTokens,
        url: str = DEFAULT_MCP_URL,
        *,
        timeout: float = DEFAULT_TIMEOUT,
        deadline: float = DEFAULT_DEADLINE,
    ) -> None:
        self._session = McpSession(tokens, url, timeout=timeout, deadline=deadline)

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
        """End the session, if there is one."""
        self._session.close()

    def listings(self, catalogs: Sequence[str] = ()) -> list[SharedListing]:
        """`ControlPlane.listings`."""
        tool = "list_bigquery_listing_resources"
        value = self._session.call(tool, {"catalogs": list(catalogs)} if catalogs else {})
        return [SharedListing.of(entry) for entry in _list(tool, value)]

    def subscribers(self) -> tuple[list[Subscriber], list[Cell]]:
        """`ControlPlane.subscribers`."""
        tool = "list_bigquery_subscribers"
        value = self._session.call(tool, {})
        entries = _list(tool, _field(tool, value, "subscribers"))
        return [Subscriber.of(entry) for entry in entries], _cells(tool, value)

    def register(self, project: str, principal: str) -> tuple[Subscriber, list[Cell]]:
        """`ControlPlane.register`."""
        tool = "register_bigquery_subscriber"
        request = {"subscriberProjectId": project, "subscriberPrincipal": principal}
        value = self._session.call(tool, {"request": request}, repeatable=False)
        subscriber = _object(tool, _field(tool, value, "subscriber"))
        return Subscriber.of(subscriber), _cells(tool, value)

    def refresh_status(self, catalog_key: str, principal: str) -> Cell:
        """`ControlPlane.refresh_status`."""
        tool = "refresh_bigquery_subscription_status"
        value = self._session.call(
            tool,
            {
                "catalog_key": catalog_key,
                "subscriber_principal": principal,
                "share_schema": _SHARE_SCHEMA,
                "schema_version": _SCHEMA_VERSION,
            },
        )
        return Cell.of(_object(tool, value))


def _cells(tool: str, value: Any) -> list[Cell]:
    return [Cell.of(entry) for entry in _list(tool, _field(tool, value, "cells"))]


def _field(tool: str, value: Any, name: str) -> Any:
    if isinstance(value, dict) and name in value:
        return value[name]
    raise OctogenMCPError(
        f"Octogen's MCP tool {tool} answered without {name!r}: report it to Octogen."
    )


def _list(tool: str, value: Any) -> list[Any]:
    if isinstance(value, list):
        return value
    raise _misplaced(tool, value, "a list")


def _object(tool: str, value: Any) -> dict[str, Any]:
    if isinstance(value, dict):
        return value
    raise _misplaced(tool, value, "an object")


def _misplaced(tool: str, value: Any, wanted: str) -> OctogenMCPError:
    return OctogenMCPError(
        f"Octogen's MCP tool {tool} answered with {type(value).__name__} where {wanted} belongs: "
        "report it to Octogen."
    )


def _text(fields: Mapping[str, Any], name: str) -> str | None:
    value = fields.get(name)
    return value.strip() or None if isinstance(value, str) else None
