"""BigQuery Analytics Hub of a sandbox: the gRPC service over `hub_state`.

It knows calls, pages and long-running operations. What a message looks like is in
`hub_messages`, what happens in `hub_state`.
"""

import base64
import hashlib
import json
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import Any, TypeVar

import grpc
from google.cloud import bigquery_analyticshub_v1 as ah
from google.iam.v1 import iam_policy_pb2  # type: ignore[import-untyped]
from google.longrunning import operations_pb2  # type: ignore[import-untyped]
from google.protobuf import empty_pb2, json_format  # type: ignore[import-untyped]

from octogen_dagster.sandbox.hub.faults import GRPC_KINDS, HubFaults
from octogen_dagster.sandbox.hub.log import HubLog
from octogen_dagster.sandbox.hub.messages import (
    exchange_message,
    listing_message,
    subscription_message,
)
from octogen_dagster.sandbox.hub.names import ListingName, Refusal, parse_parent
from octogen_dagster.sandbox.hub.settings import HubSettings
from octogen_dagster.sandbox.hub.state import Destination, HubState, Subscription

_SERVICE = "google.cloud.bigquery.analyticshub.v1.AnalyticsHubService"
_OPERATIONS = "google.longrunning.Operations"
_SUBSCRIBE = "analyticshub.listings.subscribe"
_HOST = "127.0.0.1"
_WORKERS = 32
_DEFAULT_PAGE, _MAX_PAGE_SIZE = 100, 1000
_FILTER = re.compile(r'(?:(listing|data_exchange)\s*=\s*)?"([^"]*)"')

_Item = TypeVar("_Item")


class AnalyticsHub:
    """The service, started and stopped any number of times.

    Args:
        state: What it shows and changes.
        settings: How it shows it.
        faults: What goes wrong.
        log: Where calls are noted.
    """

    def __init__(
        self, state: HubState, settings: HubSettings, faults: HubFaults, log: HubLog
    ) -> None:
        self._state = state
        self._settings = settings
        self._faults = faults
        self._log = log
        self._operations: dict[str, operations_pb2.Operation] = {}
        self._server: grpc.Server | None = None

    def start(self, port: int) -> int:
        """Listen on 127.0.0.1.

        Args:
            port: 0 for a free one.

        Returns:
            The port.

        Raises:
            OSError: The port is taken.
        """
        pool = ThreadPoolExecutor(_WORKERS, thread_name_prefix="octogen-sandbox-hub")
        server = grpc.server(pool, options=[("grpc.so_reuseport", 0)])
        server.add_generic_rpc_handlers(self._handlers())
        try:
            bound: int = server.add_insecure_port(f"{_HOST}:{port}")
        except RuntimeError as error:
            raise OSError(f"cannot listen on {_HOST}:{port}: {error}") from error
        server.start()
        self._server = server
        return bound

    def stop(self) -> None:
        """End every call at once and give the port back."""
        if self._server is not None:
            self._server.stop(grace=None).wait()
            self._server = None

    def _handlers(self) -> tuple[grpc.GenericRpcHandler, ...]:
        methods: dict[str, tuple[Callable[[bytes], Any], Callable[[Any], Any]]] = {
            "ListDataExchanges": (
                ah.ListDataExchangesRequest.deserialize,
                self._list_exchanges,
            ),
            "GetDataExchange": (ah.GetDataExchangeRequest.deserialize, self._get_exchange),
            "ListListings": (ah.ListListingsRequest.deserialize, self._list_listings),
            "GetListing": (ah.GetListingRequest.deserialize, self._get_listing),
            "TestIamPermissions": (
                iam_policy_pb2.TestIamPermissionsRequest.FromString,
                self._test_permissions,
            ),
            "SubscribeListing": (ah.SubscribeListingRequest.deserialize, self._subscribe),
            "ListSubscriptions": (
                ah.ListSubscriptionsRequest.deserialize,
                self._list_subscriptions,
            ),
            "GetSubscription": (ah.GetSubscriptionRequest.deserialize, self._get_subscription),
            "RevokeSubscription": (ah.RevokeSubscriptionRequest.deserialize, self._revoke),
            "RefreshSubscription": (ah.RefreshSubscriptionRequest.deserialize, self._refresh),
            "DeleteSubscription": (ah.DeleteSubscriptionRequest.deserialize, self._delete),
        }
        get_operation = self._handler(
            "GetOperation", operations_pb2.GetOperationRequest.FromString, self._get_operation
        )
        return (
            grpc.method_handlers_generic_handler(
                _SERVICE,
                {name: self._handler(name, *method) for name, method in methods.items()},
            ),
            grpc.method_handlers_generic_handler(_OPERATIONS, {"GetOperation": get_operation}),
        )

    def _handler(
        self, method: str, deserialize: Callable[[bytes], Any], perform: Callable[[Any], Any]
    ) -> grpc.RpcMethodHandler:
        """A handler of a method, with the faults and the log around what it does."""

        def answer(request: Any, context: grpc.ServicerContext) -> Any:
            call = self._log.begin("grpc", method, _arguments(request))
            faults = self._faults.hit(method, GRPC_KINDS)
            fault = next((fault for fault in faults if fault.kind != "latency"), None)
            code, message, response = "OK", "", None
            try:
                if fault is not None and fault.kind == "status":
                    raise Refusal(str(fault.value), f"{method}: {fault.value} on request")
                response = perform(request)
            except Refusal as refusal:
                code, message = refusal.code, refusal.message
            if fault is not None and fault.kind == "lost_answer":
                code, message = "UNAVAILABLE", f"{method}: the answer was lost on request"
            self._log.end(call, code)
            for latency in (fault for fault in faults if fault.kind == "latency"):
                _wait(context, float(latency.value))  # type: ignore[arg-type]
            if code != "OK":
                context.abort(grpc.StatusCode[code], message)
            return response

        return grpc.unary_unary_rpc_method_handler(
            answer,
            request_deserializer=deserialize,
            response_serializer=_serialize,
        )

    def _list_exchanges(self, request: ah.ListDataExchangesRequest) -> ah.ListDataExchangesResponse:
        project, location = parse_parent(request.parent)
        exchanges = self._state.exchanges(project, location)
        page, token = _page(exchanges, str, request, request.parent)
        messages = [
            exchange_message(exchange, len(self._state.listings(exchange))) for exchange in page
        ]
        return ah.ListDataExchangesResponse(data_exchanges=messages, next_page_token=token)

    def _get_exchange(self, request: ah.GetDataExchangeRequest) -> ah.DataExchange:
        exchange = self._state.get_exchange(request.name)
        return exchange_message(exchange, len(self._state.listings(exchange)))

    def _list_listings(self, request: ah.ListListingsRequest) -> ah.ListListingsResponse:
        exchange = self._state.get_exchange(request.parent)
        listings = self._state.listings(exchange)
        page, token = _page(listings, lambda listing: listing.serial, request, str(exchange))
        messages = [listing_message(listing, self._settings, request.parent) for listing in page]
        return ah.ListListingsResponse(listings=messages, next_page_token=token)

    def _get_listing(self, request: ah.GetListingRequest) -> ah.Listing:
        listing = self._state.get_listing(request.name)
        return listing_message(listing, self._settings, request.name)

    def _test_permissions(
        self, request: iam_policy_pb2.TestIamPermissionsRequest
    ) -> iam_policy_pb2.TestIamPermissionsResponse:
        granted = {_SUBSCRIBE} if self._state.may_subscribe(request.resource) else set()
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
        subscription = self._state.subscribe(
            request.name, destination, destination_first=self._settings.destination_first
        )
        return ah.SubscribeListingResponse(subscription=self._message(subscription))

    def _list_subscriptions(
        self, request: ah.ListSubscriptionsRequest
    ) -> ah.ListSubscriptionsResponse:
        project, location = parse_parent(request.parent)
        is_wanted = self._filter(request.filter)
        subscriptions = [
            subscription
            for subscription in self._state.subscriptions()
            if subscription.project == project
            and subscription.location.lower() == location.lower()
            and is_wanted(subscription.listing)
        ]
        page, token = _page(
            subscriptions,
            lambda subscription: subscription.serial,
            request,
            f"{request.parent} {request.filter}",
        )
        messages = [self._message(subscription) for subscription in page]
        return ah.ListSubscriptionsResponse(subscriptions=messages, next_page_token=token)

    def _get_subscription(self, request: ah.GetSubscriptionRequest) -> ah.Subscription:
        return self._message(self._state.get_subscription(request.name))

    def _revoke(self, request: ah.RevokeSubscriptionRequest) -> ah.RevokeSubscriptionResponse:
        self._state.revoke_subscription(request.name)
        return ah.RevokeSubscriptionResponse()

    def _refresh(self, request: ah.RefreshSubscriptionRequest) -> operations_pb2.Operation:
        subscription = self._state.refresh_subscription(request.name)
        response = ah.RefreshSubscriptionResponse(subscription=self._message(subscription))
        return self._begin(request.name, "refresh", ah.RefreshSubscriptionResponse.pb(response))

    def _delete(self, request: ah.DeleteSubscriptionRequest) -> operations_pb2.Operation:
        self._state.delete_subscription(request.name)
        return self._begin(request.name, "delete", empty_pb2.Empty())

    def _begin(self, target: str, verb: str, response: Any) -> operations_pb2.Operation:
        """An operation that is under way; whoever asks for it learns that it is done."""
        parent = target.partition("/subscriptions/")[0]
        begun = operations_pb2.Operation(name=f"{parent}/operations/{self._state.next_serial()}")
        begun.metadata.Pack(ah.OperationMetadata.pb(ah.OperationMetadata(target=target, verb=verb)))
        done = operations_pb2.Operation()
        done.CopyFrom(begun)
        done.done = True
        done.response.Pack(response)
        self._operations[done.name] = done
        return begun

    def _get_operation(
        self, request: operations_pb2.GetOperationRequest
    ) -> operations_pb2.Operation:
        if request.name not in self._operations:
            raise Refusal("NOT_FOUND", f"Operation not found: {request.name}.")
        return self._operations[request.name]

    def _filter(self, text: str) -> Callable[[ListingName], bool]:
        """What `ListSubscriptionsRequest.filter` asks of the listing of a subscription."""
        if not text:
            return lambda listing: True
        match = _FILTER.fullmatch(text.strip())
        if match is None:
            raise Refusal("INVALID_ARGUMENT", f"Invalid filter: {text!r}.")
        field, name = match.groups()
        if field == "listing" or (field is None and "/listings/" in name):
            wanted = self._state.listing_name(name)
            return lambda listing: listing == wanted
        exchange = self._state.exchange_name(name)
        return lambda listing: listing.in_exchange == exchange

    def _message(self, subscription: Subscription) -> ah.Subscription:
        return subscription_message(subscription, self._settings)


def _protobuf(message: Any) -> Any:
    """The message of the protobuf runtime in a message of either kind."""
    return type(message).pb(message) if hasattr(type(message), "pb") else message


def _serialize(message: Any) -> bytes:
    serialized: bytes = _protobuf(message).SerializeToString()
    return serialized


def _arguments(request: Any) -> dict[str, Any]:
    arguments: dict[str, Any] = json_format.MessageToDict(
        _protobuf(request), preserving_proto_field_name=True
    )
    return arguments


def _wait(context: grpc.ServicerContext, seconds: float) -> None:
    """Wait, but no longer than somebody waits for the answer."""
    ended = Event()
    if context.add_callback(ended.set):
        ended.wait(seconds)


def _page(
    items: Sequence[_Item], key: Callable[[_Item], str | int], request: Any, scope: str
) -> tuple[list[_Item], str]:
    """A page of `items` and the token of the next one, which is empty on the last.

    A token holds the key of the last item, so that what appears or goes away between two
    pages makes no item appear twice or not at all.

    Args:
        items: In the order of `key`.
        request: Has a page size and perhaps a page token.
        scope: A token is good for requests with the same.

    Raises:
        Refusal: The page size is negative or the token is of another request.
    """
    if request.page_size < 0:
        raise Refusal("INVALID_ARGUMENT", "page_size must not be negative.")
    size = min(request.page_size or _DEFAULT_PAGE, _MAX_PAGE_SIZE)
    mark = hashlib.sha256(scope.encode()).hexdigest()[:16]
    if request.page_token:
        after = _last_key(request.page_token, mark)
        items = [item for item in items if key(item) > after]  # type: ignore[operator]
    page = list(items[:size])
    if len(items) <= size:
        return page, ""
    token = json.dumps([mark, key(page[-1])]).encode()
    return page, base64.urlsafe_b64encode(token).decode()


def _last_key(token: str, mark: str) -> str | int:
    try:
        its_mark, last = json.loads(base64.urlsafe_b64decode(token))
    except (ValueError, TypeError):
        its_mark = None
    if its_mark != mark:
        raise Refusal("INVALID_ARGUMENT", "page_token is not valid for this request.")
    key: str | int = last
    return key
