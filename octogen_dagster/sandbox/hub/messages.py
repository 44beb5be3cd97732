"""Conversion of what exists in the hub to messages of the Analytics Hub API."""

from dataclasses import replace

from google.cloud import bigquery_analyticshub_v1 as ah
from google.protobuf import timestamp_pb2  # type: ignore[import-untyped]

from octogen_dagster.sandbox.hub.names import ExchangeName, project_number
from octogen_dagster.sandbox.hub.settings import HubSettings
from octogen_dagster.sandbox.hub.state import Listing, Subscription, SubscriptionState

_STATES: dict[SubscriptionState, int] = {
    "STATE_ACTIVE": ah.Subscription.State.STATE_ACTIVE,
    "STATE_STALE": ah.Subscription.State.STATE_STALE,
    "STATE_INACTIVE": ah.Subscription.State.STATE_INACTIVE,
}


def exchange_message(exchange: ExchangeName, listing_count: int) -> ah.DataExchange:
    """Return a data exchange as a message."""
    return ah.DataExchange(
        name=str(exchange),
        display_name=f"Octogen {exchange.exchange}",
        listing_count=listing_count,
    )


def listing_message(listing: Listing, settings: HubSettings, requested: str) -> ah.Listing:
    """Return a listing as a message.

    Args:
        listing: The listing.
        settings: Says how its project is named.
        requested: The name in the request: that of the listing or of its exchange.
    """
    project = listing.name.project
    shown_project = {
        "id": project,
        "number": project_number(project),
        "as_asked": requested.split("/")[1],
    }[settings.get_listing_project]
    return ah.Listing(
        name=str(replace(listing.name, project=shown_project)),
        display_name=listing.catalog,
        state=ah.Listing.State.ACTIVE,
        resource_type=ah.SharedResourceType.BIGQUERY_DATASET,
        bigquery_dataset=ah.Listing.BigQueryDatasetSource(
            dataset=f"projects/{project}/datasets/shared_{listing.serial}"
        ),
    )


def subscription_message(subscription: Subscription, settings: HubSettings) -> ah.Subscription:
    """Return a subscription as a message.

    It names its linked resources only while it is active, as the API documents.
    """
    name = subscription.listing
    if settings.listing_project == "number":
        name = replace(name, project=project_number(name.project))
    listing = str(name)
    message = ah.Subscription(
        name=subscription.name,
        listing=listing,
        state=_STATES[subscription.state],
        resource_type=ah.SharedResourceType.BIGQUERY_DATASET,
        organization_display_name=subscription.project,
        creation_time=_timestamp(subscription.created_at),
        last_modify_time=_timestamp(subscription.modified_at),
    )
    shown = settings.linked_dataset_in
    if shown in ("both", "linked_dataset_map") and subscription.state == "STATE_ACTIVE":
        linked = f"projects/{subscription.project}/datasets/{subscription.dataset}"
        resource = ah.Subscription.LinkedResource(linked_dataset=linked, listing=listing)
        message.linked_dataset_map = {listing: resource}
        message.linked_resources = [resource]
    if shown in ("both", "destination_dataset"):
        message.destination_dataset = ah.DestinationDataset(
            dataset_reference=ah.DestinationDatasetReference(
                project_id=subscription.project, dataset_id=subscription.dataset
            ),
            friendly_name=subscription.friendly_name,
            location=subscription.location,
        )
    return message


def _timestamp(seconds: float) -> timestamp_pb2.Timestamp:
    timestamp = timestamp_pb2.Timestamp()
    timestamp.FromNanoseconds(int(seconds * 1e9))
    return timestamp
