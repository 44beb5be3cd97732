"""The methods of BigQuery Analytics Hub, over the store of the hub.

`messages` converts what the store holds to messages of the API, `paging` cuts lists into pages,
and `grpc_server` serves the methods.
"""

import re
from collections.abc import Callable

from google.cloud import bigquery_analyticshub_v1 as ah
from google.iam.v1 import iam_policy_pb2  # type: ignore[import-untyped]
from google.longrunning import operations_pb2  # type: ignore[import-untyped]
from google.protobuf import empty_pb2  # type: ignore[import-untyped]

from octogen_dagster.sandbox.hub.grpc_server import Method, Services
from octogen_dagster.sandbox.hub.long_running import LongRunningOperations
from octogen_dagster.sandbox.hub.messages import (
    exchange_message,
    listing_message,
    subscription_message,
)
from octogen_dagster.sandbox.hub.names import ListingName, Refusal, parse_parent
from octogen_dagster.sandbox.hub.paging import page_of
from octogen_dagster.sandbox.hub.settings import HubSettings
from octogen_dagster.sandbox.hub.state import Destination, Subscription
from octogen_dagster.sandbox.hub.store import HubStore

_SUBSCRIBE = "analyticshub.listings.subscribe"
_FILTER = re.compile(r'(?:(listing|data_exchange)\s*=\s*)?"([^"]*)"')


class AnalyticsHub:
    """The methods, as gRPC services.

    Args:
        store: The store that they read and change.
        settings: The choices they make in their responses.
    """

    def __init__(self, store: HubStore, settings: HubSettings) -> None:
        self._store = store
        self._settings = settings
        self._operations = LongRunningOperations()

    @property
    def services(self) -> Services:
        """The services to serve."""
        get_operation = operations_pb2.GetOperationRequest.FromString
        test_permissions = iam_policy_pb2.TestIamPermissionsRequest.FromString
        return {
            "google.cloud.bigquery.analyticshub.v1.AnalyticsHubService": {
                "ListDataExchanges": Method(
                    ah.ListDataExchangesRequest.deserialize, self._list_exchanges
                ),
                "GetDataExchange": Method(
                    ah.GetDataExchangeRequest.deserialize, self._get_exchange
                ),
                "ListListings": Method(ah.ListListingsRequest.deserialize, self._list_listings),
                "GetListing": Method(ah.GetListingRequest.deserialize, self._get_listing),
                "TestIamPermissions": Method(test_permissions, self._test_permissions),
                "SubscribeListing": Method(ah.SubscribeListingRequest.deserialize, self._subscribe),
                "ListSubscriptions": Method(
                    ah.ListSubscriptionsRequest.deserialize, self._list_subscriptions
                ),
                "GetSubscription": Method(
                    ah.GetSubscriptionRequest.deserialize, self._get_subscription
                ),
                "RevokeSubscription": Method(
                    ah.RevokeSubscriptionRequest.deserialize, self._revoke
                ),
                "RefreshSubscription": Method(
                    ah.RefreshSubscriptionRequest.deserialize, self._refresh
                ),
                "DeleteSubscription": Method(
                    ah.DeleteSubscriptionRequest.deserialize, self._delete
                ),
            },
            "google.longrunning.Operations": {
                "GetOperation": Method(get_operation, self._operations.get)
            },
        }

    def _list_exchanges(self, request: ah.ListDataExchangesRequest) -> ah.ListDataExchangesResponse:
        project, location = parse_parent(request.parent)
        exchanges = self._store.exchanges(project, location)
        page, token = page_of(exchanges, str, request, request.parent)
        messages = [
            exchange_message(exchange, len(self._store.listings(exchange))) for exchange in page
        ]
        return ah.ListDataExchangesResponse(data_exchanges=messages, next_page_token=token)

    def _get_exchange(self, request: ah.GetDataExchangeRequest) -> ah.DataExchange:
        exchange = self._store.get_exchange(request.name)
        return exchange_message(exchange, len(self._store.listings(exchange)))

    def _list_listings(self, request: ah.ListListingsRequest) -> ah.ListListingsResponse:
        exchange = self._store.get_exchange(request.parent)
        listings = self._store.listings(exchange)
        page, token = page_of(listings, lambda listing: listing.serial, request, str(exchange))
        messages = [listing_message(listing, self._settings, request.parent) for listing in page]
        return ah.ListListingsResponse(listings=messages, next_page_token=token)

    def _get_listing(self, request: ah.GetListingRequest) -> ah.Listing:
        listing = self._store.get_listing(request.name)
        return listing_message(listing, self._settings, request.name)

    def _test_permissions(
        self, request: iam_policy_pb2.TestIamPermissionsRequest
    ) -> iam_policy_pb2.TestIamPermissionsResponse:
        granted = {_SUBSCRIBE} if self._store.may_subscribe(request.resource) else set()
        return iam_policy_pb2.TestIamPermissionsResponse(
            permissions=[each for each in request.permissions if each in granted]
        )

    def _subscribe(self, request: ah.SubscribeListingRequest) -> ah.SubscribeListingResponse:
        if "destination_dataset" not in request:
            raise Refusal("INVALID_ARGUMENT", "Only a destination dataset is supported.")
        wanted = request.destination_dataset
        destination = Destination(
            project=wanted.dataset_reference.project_id,
            dataset=wanted.dataset_reference.dataset_id,
            location=wanted.location,
            friendly_name=wanted.friendly_name or "",
        )
        subscription = self._store.subscribe(
            request.name, destination, destination_first=self._settings.destination_first
        )
        return ah.SubscribeListingResponse(subscription=self._message(subscription))

    def _list_subscriptions(
        self, request: ah.ListSubscriptionsRequest
    ) -> ah.ListSubscriptionsResponse:
        project, location = parse_parent(request.parent)
        is_wanted = self._parse_filter(request.filter)
        subscriptions = [
            subscription
            for subscription in self._store.subscriptions()
            if subscription.project == project
            and subscription.location.lower() == location.lower()
            and is_wanted(subscription.listing)
        ]
        page, token = page_of(
            subscriptions,
            lambda subscription: subscription.serial,
            request,
            f"{request.parent} {request.filter}",
        )
        messages = [self._message(subscription) for subscription in page]
        return ah.ListSubscriptionsResponse(subscriptions=messages, next_page_token=token)

    def _get_subscription(self, request: ah.GetSubscriptionRequest) -> ah.Subscription:
        return self._message(self._store.get_subscription(request.name))

    def _revoke(self, request: ah.RevokeSubscriptionRequest) -> ah.RevokeSubscriptionResponse:
        self._store.revoke_subscription(request.name)
        return ah.RevokeSubscriptionResponse()

    def _refresh(self, request: ah.RefreshSubscriptionRequest) -> operations_pb2.Operation:
        subscription = self._store.refresh_subscription(request.name)
        message = ah.RefreshSubscriptionResponse(subscription=self._message(subscription))
        response = ah.RefreshSubscriptionResponse.pb(message)
        serial = self._store.next_serial()
        return self._operations.start(request.name, "refresh", serial, response)

    def _delete(self, request: ah.DeleteSubscriptionRequest) -> operations_pb2.Operation:
        self._store.delete_subscription(request.name)
        serial = self._store.next_serial()
        return self._operations.start(request.name, "delete", serial, empty_pb2.Empty())

    def _parse_filter(self, text: str) -> Callable[[ListingName], bool]:
        """Return a predicate on the listing of a subscription, from a `filter` field.

        Raises:
            Refusal: The filter or the name in it is not valid.
        """
        if not text:
            return lambda listing: True
        match = _FILTER.fullmatch(text.strip())
        if match is None:
            raise Refusal("INVALID_ARGUMENT", f"Invalid filter: {text!r}.")
        field, name = match.groups()
        if field == "listing" or (field is None and "/listings/" in name):
            wanted = self._store.listing_name(name)
            return lambda listing: listing == wanted
        exchange = self._store.exchange_name(name)
        return lambda listing: listing.in_exchange == exchange

    def _message(self, subscription: Subscription) -> ah.Subscription:
        return subscription_message(subscription, self._settings)
