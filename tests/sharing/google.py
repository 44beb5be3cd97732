"""Analytics Hub and BigQuery of Google's proto classes, where a dataset id may be taken."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from google.cloud import bigquery_analyticshub_v1 as ah
from google.longrunning import operations_pb2  # type: ignore[import-untyped]
from google.protobuf import any_pb2, empty_pb2  # type: ignore[import-untyped]

from tests.api.servers import RawServer, Received, http
from tests.bigquery.rest_api import refused
from tests.sharing.hubs import Refusal, answering, granting

PROJECT = "reader-project"
LISTING = "projects/octo/locations/us/dataExchanges/catalogs/listings/acme"
ELSEWHERE = LISTING.replace("/us/", "/eu/")
SIBLING = LISTING.replace("/catalogs/", "/staging/")
SHARED = "projects/123/datasets/acme_v1"
DEFAULT = "octogen_acme"
NOT_FOUND = refused(404, "notFound", "Not found: Dataset.")

ACTIVE = ah.Subscription.State.STATE_ACTIVE
REVOKED = ah.Subscription.State.STATE_INACTIVE


def linked(source: str = SHARED, *, location: str = "US", state: str = "LINKED") -> Any:
    """BigQuery's answer about a linked dataset."""
    _, project, _, dataset = source.split("/")
    return 200, {
        "type": "LINKED",
        "location": location,
        "linkedDatasetSource": {"sourceDataset": {"projectId": project, "datasetId": dataset}},
        "linkedDatasetMetadata": {"linkState": state},
    }


def subscription(
    listing: str = LISTING, dataset: str = DEFAULT, state: Any = ACTIVE, name: str = "s-1"
) -> ah.Subscription:
    reference = ah.DestinationDatasetReference(project_id=PROJECT, dataset_id=dataset)
    location = listing.split("/")[3]
    return ah.Subscription(
        name=f"projects/1/locations/{location}/subscriptions/{name}",
        listing=listing,
        state=state,
        destination_dataset=ah.DestinationDataset(dataset_reference=reference),
    )


@dataclass
class Google:
    """Analytics Hub and BigQuery as a test writes them; the last of several answers stays.

    Attributes:
        listed: The subscriptions of each `ListSubscriptions` of the listing's location.
        elsewhere: Those of any other location.
        dataset: The answers of `datasets.get`.
        refusals: How many times `SubscribeListing` says that the dataset is there.
        shared: The dataset that the listing shares.
        visible: True if the listing may be read.
        names_the_dataset: False if a new subscription does not name its dataset.
        permissions: Those that are granted on the listing.
        calls: What was called.
        requests: The requests of `SubscribeListing`.
    """

    listed: list[list[ah.Subscription]] = field(default_factory=lambda: [[]])
    elsewhere: list[ah.Subscription] = field(default_factory=list)
    dataset: list[Any] = field(default_factory=lambda: [NOT_FOUND])
    refusals: int = 1
    shared: str = SHARED
    visible: bool = True
    names_the_dataset: bool = True
    permissions: Sequence[str] = ("analyticshub.listings.subscribe",)
    calls: list[str] = field(default_factory=list)
    requests: list[ah.SubscribeListingRequest] = field(default_factory=list)

    def list_subscriptions(self, request: ah.ListSubscriptionsRequest) -> Any:
        self.calls.append("list")
        here = request.parent.endswith("/us")
        return ah.ListSubscriptionsResponse(
            subscriptions=_next(self.listed) if here else self.elsewhere
        )

    def subscribe(self, request: ah.SubscribeListingRequest) -> Any:
        self.calls.append("subscribe")
        self.requests.append(request)
        if len(self.requests) <= self.refusals:
            raise Refusal("ALREADY_EXISTS", "Already Exists: Dataset.")
        dataset = request.destination_dataset.dataset_reference.dataset_id
        created = subscription(request.name, dataset if self.names_the_dataset else "", name="new")
        return ah.SubscribeListingResponse(subscription=created)

    def get_listing(self, request: ah.GetListingRequest) -> ah.Listing:
        if not self.visible:
            raise Refusal("PERMISSION_DENIED")
        source = ah.Listing.BigQueryDatasetSource(dataset=self.shared)
        return ah.Listing(name=request.name, bigquery_dataset=source)

    def delete(self, request: ah.DeleteSubscriptionRequest) -> Any:
        self.calls.append(f"delete {request.name.rpartition('/')[2]}")
        done = any_pb2.Any()
        done.Pack(empty_pb2.Empty())
        return operations_pb2.Operation(name="operations/1", done=True, response=done)

    def get_dataset(self, request: Received) -> Any:
        answer = _next(self.dataset)
        self.calls.append(f"dataset {answer[0]}")
        return http(*answer)


def _next(answers: list[Any]) -> Any:
    return answers.pop(0) if len(answers) > 1 else answers[0]


@contextlib.contextmanager
def running(google: Google, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Run them, with BigQuery's address in the environment.

    Yields:
        Analytics Hub's `host:port`.
    """
    with (
        RawServer(google.get_dataset) as bigquery,
        answering(
            ListSubscriptions=google.list_subscriptions,
            SubscribeListing=google.subscribe,
            GetListing=google.get_listing,
            DeleteSubscription=google.delete,
            TestIamPermissions=granting(*google.permissions),
        ) as endpoint,
    ):
        monkeypatch.setenv("BIGQUERY_EMULATOR_HOST", bigquery.origin)
        yield endpoint
