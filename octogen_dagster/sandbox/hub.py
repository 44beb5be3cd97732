"""The sandbox's hub: Analytics Hub over gRPC, Octogen's MCP server and BigQuery over HTTP."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
from google.cloud import bigquery_analyticshub_v1 as ah
from google.iam.v1 import iam_policy_pb2  # type: ignore[import-untyped]
from google.longrunning import operations_pb2  # type: ignore[import-untyped]
from google.protobuf import empty_pb2  # type: ignore[import-untyped]
from starlette.types import ASGIApp

from octogen_dagster.sandbox.bigquery import BIGQUERY_PATH, create_bigquery_app
from octogen_dagster.sandbox.catalog import Catalogs
from octogen_dagster.sandbox.gateway import BASE_PATH
from octogen_dagster.sandbox.listings import (
    LOCATION,
    HubCall,
    Listing,
    Listings,
    Refusal,
    Subscription,
)
from octogen_dagster.sandbox.mcp import MCP_PATH, create_app

_HOST = "127.0.0.1"
_ACCESS_TOKEN = "sandbox-access-token"  # noqa: S105 - not a secret
_SERVICE = "google.cloud.bigquery.analyticshub.v1.AnalyticsHubService"
_Answer = Callable[[Listings, Any], Any]


class Hub(Listings):
    """Catalogs that are shared over BigQuery Analytics Hub. Created with `Sandbox(hub=True)`.

    ```
    with Sandbox(hub=True) as sandbox:
        sandbox.hub.share("northpeak", granted=False)
        ...
        sandbox.hub.grant_access("northpeak")
        ...
        assert len(sandbox.hub.datasets("my-project")) == 1
    ```

    Three services use the same data: Analytics Hub's gRPC service for subscribing to listings,
    Octogen's MCP server for listings and subscribers, and a BigQuery service that runs simple
    SELECT statements on views in linked datasets. At first, no catalogs are shared.

    All attributes can be read and changed from any thread while the sandbox runs. Reading a URL
    before the sandbox runs raises RuntimeError. `environment` contains the MCP access token, so no
    login is needed.
    """

    def __init__(self, catalogs: Catalogs) -> None:
        super().__init__(catalogs)
        self._port: int | None = None
        self._http_port: int | None = None

    @property
    def endpoint(self) -> str:
        """Analytics Hub's host and port, for gRPC without TLS."""
        return f"{_HOST}:{_started(self._port)}"

    @property
    def mcp_url(self) -> str:
        """The MCP server's URL."""
        return f"{self._http_address}{MCP_PATH}"

    @property
    def environment(self) -> dict[str, str]:
        """Environment variables that point clients to the hub."""
        return {
            "OCTOGEN_MCP_URL": self.mcp_url,
            "OCTOGEN_MCP_ACCESS_TOKEN": _ACCESS_TOKEN,
            "ANALYTICS_HUB_EMULATOR_HOST": self.endpoint,
            "BIGQUERY_EMULATOR_HOST": self._http_address,
        }

    @property
    def _http_address(self) -> str:
        return f"http://{_HOST}:{_started(self._http_port)}"

    def http_app(self, rest: ASGIApp) -> ASGIApp:
        """Return the ASGI app for MCP, BigQuery and REST. Run the app with its lifespan."""
        others: dict[str, ASGIApp] = {
            f"{BASE_PATH}/": rest,
            BIGQUERY_PATH: create_bigquery_app(self),
        }
        return create_app(self, _ACCESS_TOKEN, others)

    @contextmanager
    def serving(self, http_port: int, port: int) -> Iterator[None]:
        """Serve Analytics Hub on a port during the block.

        Port 0 selects a free port. Raise OSError if the port is taken.
        """
        self._http_port = http_port
        pool = ThreadPoolExecutor(32, thread_name_prefix="octogen-sandbox-hub")
        # Otherwise two servers could share a port, and each would receive some of the calls.
        server = grpc.server(pool, options=[("grpc.so_reuseport", 0)])
        server.add_generic_rpc_handlers([_handler(self)])
        try:
            self._port = server.add_insecure_port(f"{_HOST}:{port}")
        except RuntimeError as error:
            raise OSError(f"cannot listen on {_HOST}:{port}: {error}") from error
        server.start()
        try:
            yield
        finally:
            server.stop(grace=None).wait()


def _started(port: int | None) -> int:
    if port is None:
        raise RuntimeError("the hub has no URL until the sandbox runs: use it in a `with` block")
    return port


def _handler(store: Listings) -> grpc.GenericRpcHandler:
    """Return Analytics Hub's methods for subscribers. All other methods are UNIMPLEMENTED."""

    def handle(name: str, deserialize: Any, answer: _Answer) -> grpc.RpcMethodHandler:
        def respond(request: Any, context: grpc.ServicerContext) -> Any:
            call = store.log(HubCall(name))
            try:
                response = answer(store, request)
            except Refusal as refusal:
                call.outcome, message = refusal.args
                context.abort(grpc.StatusCode[refusal.args[0]], message)
            call.outcome = "OK"
            return response

        return grpc.unary_unary_rpc_method_handler(
            respond,
            request_deserializer=deserialize,
            response_serializer=lambda message: _protobuf(message).SerializeToString(),
        )

    methods: dict[str, tuple[Any, _Answer]] = {
        "ListListings": (ah.ListListingsRequest.deserialize, _list_listings),
        "GetListing": (ah.GetListingRequest.deserialize, _get_listing),
        "TestIamPermissions": (
            iam_policy_pb2.TestIamPermissionsRequest.FromString,
            _test_permissions,
        ),
        "SubscribeListing": (ah.SubscribeListingRequest.deserialize, _subscribe),
        "ListSubscriptions": (ah.ListSubscriptionsRequest.deserialize, _list_subscriptions),
        "DeleteSubscription": (ah.DeleteSubscriptionRequest.deserialize, _delete),
    }
    return grpc.method_handlers_generic_handler(
        _SERVICE, {name: handle(name, *method) for name, method in methods.items()}
    )


def _list_listings(store: Listings, request: ah.ListListingsRequest) -> ah.ListListingsResponse:
    if request.parent != store.exchange:
        raise Refusal("NOT_FOUND", f"Data exchange not found: {request.parent}.")
    page, token = _page(store.listings, request)
    return ah.ListListingsResponse(
        listings=[_listing_message(each) for each in page], next_page_token=token
    )


def _get_listing(store: Listings, request: ah.GetListingRequest) -> ah.Listing:
    return _listing_message(store.find(request.name))


def _test_permissions(store: Listings, request: Any) -> Any:
    try:
        is_granted = store.find(request.resource).access == "granted"
    except Refusal:
        is_granted = False
    granted = {"analyticshub.listings.subscribe"} if is_granted else set()
    return iam_policy_pb2.TestIamPermissionsResponse(
        permissions=[each for each in request.permissions if each in granted]
    )


def _subscribe(store: Listings, request: ah.SubscribeListingRequest) -> ah.SubscribeListingResponse:
    dataset = request.destination_dataset.dataset_reference
    subscription = store.subscribe(request.name, dataset.project_id, dataset.dataset_id)
    return ah.SubscribeListingResponse(subscription=_subscription_message(subscription))


def _list_subscriptions(
    store: Listings, request: ah.ListSubscriptionsRequest
) -> ah.ListSubscriptionsResponse:
    _, project, _, location = request.parent.split("/")
    found = [
        each
        for each in store.subscriptions
        if (each.project, LOCATION) == (project, location.lower())
    ]
    page, token = _page(found, request)
    return ah.ListSubscriptionsResponse(
        subscriptions=[_subscription_message(each) for each in page], next_page_token=token
    )


def _delete(store: Listings, request: ah.DeleteSubscriptionRequest) -> Any:
    """Return a long-running operation that is already done."""
    store.delete_subscription(request.name)
    operation = operations_pb2.Operation(name=f"{request.name}/operations/delete", done=True)
    operation.response.Pack(empty_pb2.Empty())
    return operation


def _page(items: Sequence[Any], request: Any) -> tuple[Sequence[Any], str]:
    """Return the requested page, and the token of the next page or an empty string."""
    start = int(request.page_token or 0)
    end = start + min(request.page_size or 100, 1000)
    return items[start:end], str(end) if end < len(items) else ""


def _listing_message(listing: Listing) -> ah.Listing:
    project = listing.name.split("/")[1]
    dataset = f"projects/{project}/datasets/{listing.name.rpartition('/')[2].replace('-', '_')}"
    return ah.Listing(
        name=listing.name,
        display_name=listing.catalog,
        state=ah.Listing.State.ACTIVE,
        resource_type=ah.SharedResourceType.BIGQUERY_DATASET,
        bigquery_dataset=ah.Listing.BigQueryDatasetSource(dataset=dataset),
    )


def _subscription_message(subscription: Subscription) -> ah.Subscription:
    """Return the message for a subscription. Only active subscriptions have linked resources."""
    states = ah.Subscription.State
    message = ah.Subscription(
        name=subscription.name,
        listing=subscription.listing,
        state=states.STATE_ACTIVE if subscription.is_active else states.STATE_INACTIVE,
        resource_type=ah.SharedResourceType.BIGQUERY_DATASET,
        destination_dataset=ah.DestinationDataset(
            dataset_reference=ah.DestinationDatasetReference(
                project_id=subscription.project, dataset_id=subscription.dataset
            ),
            location=LOCATION,
        ),
    )
    if subscription.is_active:
        linked = f"projects/{subscription.project}/datasets/{subscription.dataset}"
        resource = ah.Subscription.LinkedResource(
            linked_dataset=linked, listing=subscription.listing
        )
        message.linked_dataset_map = {subscription.listing: resource}
        message.linked_resources = [resource]
    return message


def _protobuf(message: Any) -> Any:
    """Unwrap a proto-plus message. Other messages are returned unchanged."""
    return type(message).pb(message) if hasattr(type(message), "pb") else message
