"""A data exchange, its subscriptions and a project's datasets, of Google's proto classes.

It remembers what was subscribed to. It goes wrong as a test says: answers are lost, lists lag
behind, datasets outlive their subscription.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from google.cloud import bigquery_analyticshub_v1 as ah

from tests.servers.analytics_hub import Refusal, answering, granting

PROJECT = "reader-project"
EXCHANGE = "projects/octo/locations/us/dataExchanges/catalogs"
LISTING = f"{EXCHANGE}/listings/acme"
BY_NUMBER = LISTING.replace("/octo/", "/123/")
DATASET = "octogen_acme"
SUBSCRIBE = "analyticshub.listings.subscribe"

ACTIVE: Any = ah.Subscription.State.STATE_ACTIVE
STALE: Any = ah.Subscription.State.STATE_STALE
REVOKED: Any = ah.Subscription.State.STATE_INACTIVE
FIELDS = ("destination_dataset", "linked_dataset_map")


@dataclass
class Google:
    """Analytics Hub, and the datasets of the project `PROJECT`.

    Attributes:
        listings: The listings of the exchange.
        granted: True if the subscriber may subscribe.
        subscriptions: The subscriptions that there are.
        datasets: The ids of the project's datasets.
        names_the_dataset: The fields of a subscription that name its dataset.
        by_number: True if a subscription names its listing's project by number.
        lost: How many answers of `SubscribeListing` are lost; what they say was done.
        lag: How many lists do not have the subscriptions that are newer than the first list.
        calls: The methods that were called.
        requests: The requests of `SubscribeListing`.
        on_answer: Called with the name of a method before its answer is sent.
    """

    listings: list[ah.Listing] = field(default_factory=lambda: [ah.Listing(name=LISTING)])
    granted: bool = True
    subscriptions: list[ah.Subscription] = field(default_factory=list)
    datasets: set[str] = field(default_factory=set)
    names_the_dataset: tuple[str, ...] = FIELDS
    by_number: bool = False
    lost: int = 0
    lag: int = 0
    calls: list[str] = field(default_factory=list)
    requests: list[ah.SubscribeListingRequest] = field(default_factory=list)
    on_answer: Callable[[str], None] = lambda _: None
    _refusals: dict[str, list[Refusal]] = field(default_factory=dict)
    _lock: Any = field(default_factory=threading.Lock)

    def add(
        self,
        listing: str = LISTING,
        dataset: str = DATASET,
        state: Any = ACTIVE,
        name: str = "s-1",
        project: str = PROJECT,
    ) -> str:
        """Add a subscription with its dataset; return its name."""
        self.datasets.add(dataset)
        linked = f"projects/{project}/datasets/{dataset}"
        added = ah.Subscription(
            name=f"projects/{PROJECT}/locations/{listing.split('/')[3]}/subscriptions/{name}",
            listing=listing.replace("/octo/", "/123/") if self.by_number else listing,
            state=state,
        )
        if "destination_dataset" in self.names_the_dataset:
            reference = ah.DestinationDatasetReference(project_id=project, dataset_id=dataset)
            added.destination_dataset = ah.DestinationDataset(dataset_reference=reference)
        if "linked_dataset_map" in self.names_the_dataset and state == ACTIVE:
            added.linked_dataset_map = {
                listing: ah.Subscription.LinkedResource(linked_dataset=linked)
            }
        self.subscriptions.append(added)
        return added.name

    def refuse(self, method: str, code: str, times: int = 1, *details: Any, text: str = "") -> None:
        """Refuse the next calls of a method."""
        refusal = Refusal(code, text or f"{method} on request.", *details)
        self._refusals[method] = [refusal] * times

    @contextlib.contextmanager
    def running(self) -> Iterator[str]:
        """Serve; yield the `host:port`."""
        answers = {
            "ListListings": self._list_listings,
            "GetListing": self._get_listing,
            "ListSubscriptions": self._list_subscriptions,
            "SubscribeListing": self._subscribe,
            "TestIamPermissions": self._test_permissions,
        }
        with answering(
            **{name: self._called(name, answer) for name, answer in answers.items()}
        ) as endpoint:
            yield endpoint

    def _called(self, name: str, answer: Any) -> Any:
        def method(request: Any) -> Any:
            with self._lock:
                self.calls.append(name)
                if self._refusals.get(name):
                    raise self._refusals[name].pop()
                answered = answer(request)
                self.on_answer(name)
                return answered

        return method

    def _list_listings(self, request: ah.ListListingsRequest) -> Any:
        of_exchange = [each for each in self.listings if each.name.startswith(request.parent)]
        return ah.ListListingsResponse(listings=of_exchange)

    def _get_listing(self, request: ah.GetListingRequest) -> Any:
        for each in self.listings:
            if each.name == request.name:
                return each
        raise Refusal("NOT_FOUND", "No such listing.")

    def _list_subscriptions(self, request: ah.ListSubscriptionsRequest) -> Any:
        here = [each for each in self.subscriptions if each.name.startswith(request.parent + "/")]
        if self.requests and self.lag:
            self.lag -= 1
            here = here[: -len(self.requests)]
        return ah.ListSubscriptionsResponse(subscriptions=here)

    def _subscribe(self, request: ah.SubscribeListingRequest) -> Any:
        if not self.granted:
            raise Refusal("PERMISSION_DENIED", "Permission denied on resource.")
        wanted = request.destination_dataset
        if wanted.location.lower() != request.name.split("/")[3].lower():
            raise Refusal("INVALID_ARGUMENT", "The destination is not where the listing is.")
        dataset = wanted.dataset_reference.dataset_id
        if dataset in self.datasets:
            raise Refusal("ALREADY_EXISTS", "Already Exists: Dataset.")
        self.requests.append(request)
        self.add(request.name, dataset, name=f"new-{len(self.requests)}")
        if self.lost:
            self.lost -= 1
            raise Refusal("UNAVAILABLE", "The answer was lost.")
        return ah.SubscribeListingResponse(subscription=self.subscriptions[-1])

    def _test_permissions(self, request: Any) -> Any:
        return granting(*[SUBSCRIBE] * self.granted)(request)
