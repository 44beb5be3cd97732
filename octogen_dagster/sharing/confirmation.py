"""The last step of a subscription: Octogen looks at it again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from octogen_dagster.errors import OctogenError

if TYPE_CHECKING:
    from octogen_dagster.sharing.octogen_protocols import ControlPlane
    from octogen_dagster.sharing.subscriber_view import SubscriberListing


@dataclass(frozen=True, slots=True)
class Confirmation:
    """Octogen's status after it looked at a subscription again.

    Attributes:
        status: The status; None if Octogen did not send one.
        reason_code: Octogen's reason for the status; None if Octogen did not send one.
        problem: Why Octogen did not look again; None if it did.
    """

    status: str | None = None
    reason_code: str | None = None
    problem: str | None = None


def confirm(
    control_plane: ControlPlane, listing: SubscriberListing, principal: str
) -> Confirmation:
    """Tell Octogen to look at a subscription again. A failure is returned and not raised.

    Args:
        control_plane: Octogen.
        listing: The listing that was subscribed to.
        principal: The IAM principal that subscribed.
    """
    try:
        cell = control_plane.refresh_status(
            listing.catalog_key or "",
            principal,
            share_schema=listing.share_schema,
            schema_version=listing.schema_version,
        )
    except OctogenError as error:
        return Confirmation(problem=f"It is subscribed, but Octogen did not look again: {error}")
    return Confirmation(status=cell.status, reason_code=cell.reason_code)
