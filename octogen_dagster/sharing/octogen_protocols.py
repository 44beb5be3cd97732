"""Protocols of Octogen's control plane, which this room takes as an argument.

The objects of `octogen_dagster.control_plane.tools` have this shape.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence


class SharedListing(Protocol):
    """A listing as Octogen names it; a part that Octogen did not send is None."""

    @property
    def catalog_key(self) -> str | None:
        """The key of the catalog."""

    @property
    def listing_resource(self) -> str | None:
        """The listing's resource name."""

    @property
    def linked_dataset(self) -> str | None:
        """The dataset id that Octogen suggests."""

    @property
    def location(self) -> str | None:
        """The BigQuery location."""

    @property
    def sample_query(self) -> str | None:
        """A first query to the linked dataset."""


class Cell(SharedListing, Protocol):
    """The status of one listing for one subscriber; a part that Octogen did not send is None."""

    @property
    def subscriber_id(self) -> str | None:
        """Octogen's id of the subscriber."""

    @property
    def status(self) -> str | None:
        """The status, as `preparing`, `awaiting_subscription` or `active`."""

    @property
    def reason_code(self) -> str | None:
        """The reason for the status, if there is one."""

    @property
    def share_schema(self) -> str | None:
        """The schema of the share."""

    @property
    def schema_version(self) -> str | None:
        """The version of this schema."""


class Subscriber(Protocol):
    """A principal that reads shared catalogs from a project of its own."""

    @property
    def subscriber_id(self) -> str | None:
        """Octogen's id of the subscriber."""

    @property
    def project(self) -> str | None:
        """The project that linked datasets are created in."""

    @property
    def principal(self) -> str | None:
        """The IAM principal."""

    @property
    def desired_state(self) -> str | None:
        """`enabled`, or another word when Octogen does not serve the subscriber."""


class ControlPlane(Protocol):
    """Octogen's control plane. Each call may raise OctogenMCPError or OctogenConnectionError."""

    def listings(self, catalogs: Sequence[str] = ()) -> Sequence[SharedListing]:
        """Read the listings of these catalogs that are granted, or of all that are."""

    def subscribers(self) -> tuple[Sequence[Subscriber], Sequence[Cell]]:
        """Read the organisation's subscribers, and the cells of all of them."""

    def register(self, project: str, principal: str) -> tuple[Subscriber, Sequence[Cell]]:
        """Register a subscriber; returns it with its cells."""

    def refresh_status(
        self,
        catalog_key: str,
        principal: str,
        *,
        share_schema: str | None = None,
        schema_version: str | None = None,
    ) -> Cell:
        """Ask Octogen to look at a subscription again; returns what it sends of the cell."""
