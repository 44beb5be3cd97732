"""A data exchange that remembers its subscriptions, of Google's proto classes."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from google.cloud import bigquery_analyticshub_v1 as ah
from google.iam.v1 import iam_policy_pb2  # type: ignore[import-untyped]

from tests.servers.analytics_hub import Refusal, answering

NAME = "projects/octo/locations/us/dataExchanges/catalogs"


class Exchange:
    """A data exchange.

    Attributes:
        listings: The ids of the listings that it shows, each with a grant.
        subscribed: The id of the listing of each subscription, in order.
        refused: The ids of listings whose second subscription was refused.
        on_list: Called when the listings are read, before the response.
        on_subscribe: Called with a listing's id after its subscription was created and before the
            response.
    """

    def __init__(self) -> None:
        self.listings: list[str] = []
        self.subscribed: list[str] = []
        self.refused: list[str] = []
        self.on_list: Callable[[], None] = lambda: None
        self.on_subscribe: Callable[[str], None] = lambda _: None
        self._subscriptions: dict[str, ah.Subscription] = {}

    @contextlib.contextmanager
    def running(self) -> Iterator[str]:
        """Serve; yield the `host:port`."""
        with answering(
            ListListings=self._list_listings,
            GetListing=lambda request: _listing(request.name.rpartition("/")[2]),
            ListSubscriptions=self._list_subscriptions,
            SubscribeListing=self._subscribe,
            TestIamPermissions=lambda request: iam_policy_pb2.TestIamPermissionsResponse(
                permissions=request.permissions
            ),
        ) as address:
            yield address

    def _list_listings(self, request: ah.ListListingsRequest) -> ah.ListListingsResponse:
        self.on_list()
        return ah.ListListingsResponse(listings=[_listing(each) for each in self.listings])

    def _list_subscriptions(
        self, request: ah.ListSubscriptionsRequest
    ) -> ah.ListSubscriptionsResponse:
        return ah.ListSubscriptionsResponse(subscriptions=list(self._subscriptions.values()))

    def _subscribe(self, request: ah.SubscribeListingRequest) -> ah.SubscribeListingResponse:
        listing = request.name.rpartition("/")[2]
        if listing in self._subscriptions:
            self.refused.append(listing)
            raise Refusal("ALREADY_EXISTS")
        dataset = request.destination_dataset.dataset_reference
        linked = f"projects/{dataset.project_id}/datasets/{dataset.dataset_id}"
        subscription = ah.Subscription(
            name=f"projects/{dataset.project_id}/locations/us/subscriptions/{listing}",
            listing=request.name,
            destination_dataset=request.destination_dataset,
            linked_dataset_map={linked: ah.Subscription.LinkedResource(linked_dataset=linked)},
            state=ah.Subscription.State.STATE_ACTIVE,
        )
        self._subscriptions[listing] = subscription
        self.subscribed.append(listing)
        self.on_subscribe(listing)
        return ah.SubscribeListingResponse(subscription=subscription)


def _listing(listing: str) -> ah.Listing:
    return ah.Listing(
        name=f"{NAME}/listings/{listing}",
        display_name=listing,
        bigquery_dataset=ah.Listing.BigQueryDatasetSource(
            dataset=f"projects/octo/datasets/{listing}"
        ),
    )
