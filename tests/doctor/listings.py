"""Names and messages of listings and subscriptions, of Google's classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from google.cloud import bigquery_analyticshub_v1 as ah

PROJECT = "my-project"
EXCHANGE = "projects/octogen/locations/US/dataExchanges/catalogs"
SUBSCRIBE = "analyticshub.listings.subscribe"


def listing(name: str) -> str:
    """The resource name of a listing."""
    return f"{EXCHANGE}/listings/{name}"


def subscribed(*names: str) -> Any:
    """A `ListSubscriptions` with an active subscription to each of these listings."""
    subscriptions = [
        ah.Subscription(
            name=f"projects/{PROJECT}/locations/US/subscriptions/{name}",
            listing=listing(name),
            state=ah.Subscription.State.STATE_ACTIVE,
            destination_dataset=ah.DestinationDataset(
                dataset_reference=ah.DestinationDatasetReference(
                    project_id=PROJECT, dataset_id=f"octogen_{name}"
                )
            ),
        )
        for name in names
    ]
    return lambda _: ah.ListSubscriptionsResponse(subscriptions=subscriptions)


def granted_for(resources: Sequence[str]) -> Any:
    """A `TestIamPermissions` that grants the right to subscribe to these listings."""
    from google.iam.v1 import iam_policy_pb2  # type: ignore[import-untyped]

    return lambda request: iam_policy_pb2.TestIamPermissionsResponse(
        permissions=request.permissions if request.resource in resources else []
    )
