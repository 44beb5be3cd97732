"""The plan of a subscription: which dataset is linked to which listing. No I/O."""

from __future__ import annotations

from dataclasses import dataclass

from octogen_dagster.sharing.resource_names import (
    ListingName,
    checked_dataset_id,
    checked_project,
)


@dataclass(frozen=True, slots=True)
class SubscriptionPlan:
    """The request to link a dataset to a listing; `plan_subscription` makes one.

    Attributes:
        listing: The listing.
        project: The project that the linked dataset is created in.
        dataset_id: The id of the linked dataset.
        location: Its BigQuery location.
        friendly_name: Its display name.
    """

    listing: ListingName
    project: str
    dataset_id: str
    location: str
    friendly_name: str


def plan_subscription(
    listing_resource: str,
    destination_project: str,
    destination_dataset_id: str | None = None,
    location: str | None = None,
    friendly_name: str | None = None,
) -> SubscriptionPlan:
    """Make the plan for a listing. What is left out is derived from the listing's name.

    Args:
        listing_resource: The listing's resource name.
        destination_project: The project that the linked dataset is created in.
        destination_dataset_id: The id of the linked dataset; by default `octogen_<listing id>`.
        location: The BigQuery location of the linked dataset; by default the listing's.
        friendly_name: The display name of the linked dataset; by default `Octogen <dataset id>`.

    Raises:
        OctogenBigQueryInputError: A name is invalid.
    """
    listing = ListingName.parse(listing_resource)
    dataset_id = checked_dataset_id(destination_dataset_id or listing.default_dataset_id)
    return SubscriptionPlan(
        listing=listing,
        project=checked_project(destination_project),
        dataset_id=dataset_id,
        location=location or listing.location,
        friendly_name=friendly_name or f"Octogen {dataset_id}",
    )
