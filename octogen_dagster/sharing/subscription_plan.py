"""The plan of a subscription: which dataset is linked to which listing. No I/O."""

from __future__ import annotations

from dataclasses import dataclass, replace

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
        is_fixed: True if no other dataset id may take its place: a user chose it, or it is the
            alternative.
    """

    listing: ListingName
    project: str
    dataset_id: str
    location: str
    friendly_name: str
    is_fixed: bool

    @property
    def alternative(self) -> SubscriptionPlan | None:
        """The plan with a digest of the listing's name in the dataset id; None if that is fixed."""
        if self.is_fixed:
            return None
        dataset_id = self.listing.distinct_dataset_id(self.dataset_id)
        is_default = self.friendly_name == _friendly_name(self.dataset_id)
        friendly_name = _friendly_name(dataset_id) if is_default else self.friendly_name
        return replace(self, dataset_id=dataset_id, friendly_name=friendly_name, is_fixed=True)


def plan_subscription(
    listing_resource: str,
    destination_project: str,
    destination_dataset_id: str | None = None,
    location: str | None = None,
    friendly_name: str | None = None,
    *,
    suggested_dataset_id: str | None = None,
) -> SubscriptionPlan:
    """Make the plan for a listing. What is left out is derived from the listing's name.

    Two listings may have the same default or suggested dataset id: those with the same id in two
    exchanges or regions, and those whose ids differ only in characters that BigQuery does not
    allow. A plan is made for one listing alone and cannot see this. The first to subscribe gets the
    dataset id; for the other, `Subscriptions.subscribe` finds out that the dataset is linked to
    another listing, and appends a digest of the listing's own name. Either keeps its dataset from
    then on, since an existing subscription is found by its listing.

    Args:
        listing_resource: The listing's resource name.
        destination_project: The project that the linked dataset is created in.
        destination_dataset_id: The id of the linked dataset; by default the suggested one.
        location: The BigQuery location of the linked dataset; by default the listing's.
        friendly_name: The display name of the linked dataset; by default `Octogen <dataset id>`.
        suggested_dataset_id: The id that Octogen suggests; by default `octogen_<listing id>`.

    Raises:
        OctogenBigQueryInputError: A name is invalid.
    """
    listing = ListingName.parse(listing_resource)
    dataset_id = checked_dataset_id(
        destination_dataset_id or suggested_dataset_id or listing.default_dataset_id
    )
    return SubscriptionPlan(
        listing=listing,
        project=checked_project(destination_project),
        dataset_id=dataset_id,
        location=location or listing.location,
        friendly_name=friendly_name or _friendly_name(dataset_id),
        is_fixed=bool(destination_dataset_id),
    )


def _friendly_name(dataset_id: str) -> str:
    return f"Octogen {dataset_id}"
