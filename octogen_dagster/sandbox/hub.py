"""The hub of a sandbox: Analytics Hub by gRPC, and by `mcp` the MCP server with its login."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
from google.cloud import bigquery_analyticshub_v1 as ah
from google.iam.v1 import iam_policy_pb2  # type: ignore[import-untyped]
from google.longrunning import operations_pb2  # type: ignore[import-untyped]
from google.protobuf import empty_pb2, json_format  # type: ignore[import-untyped]
from starlette.types import ASGIApp

from octogen_dagster.sandbox.listings import (
    HubCall,
    Listing,
    Listings,
    Refusal,
    Subscription,
    project_number,
)
from octogen_dagster.sandbox.mcp import CLIENT_ID, MCP_PATH, TOKEN_PATH, Login, Tools, create_app

_HOST = "127.0.0.1"
_Answer = Callable[[Listings, Any], Any]
_SERVICE = "google.cloud.bigquery.analyticshub.v1.AnalyticsHubService"


class Hub(Listings):
    """Catalogs shared over BigQuery Analytics Hub, as `Sandbox(hub=True).hub`.

    ```
    with Sandbox(hub=True) as sandbox:
        sandbox.hub.share("northpeak", granted=False)
        ...
        sandbox.hub.grant_access("northpeak")
        ...
        assert len(sandbox.hub.datasets("my-project")) == 1
    ```

    Three services share one store: the gRPC service of Analytics Hub, where listings are
    subscribed to; Octogen's MCP server, which says what is shared with whom; and the login, which
    issues the tokens for MCP. Nothing is shared at first. Everything can be read and changed from
    any thread while the sandbox runs. An address is a RuntimeError until it runs. With
    `rotates_refresh_tokens` a refresh token is replaced, and invalid, once it is used.
    """

    def __init__(self, take_request: Callable[[], int | None]) -> None:
        """`take_request` returns None, or the seconds until the rate limit allows a request."""
        super().__init__()
        self.rotates_refresh_tokens = False
        self._login = Login(self, lambda: self.rotates_refresh_tokens)
        self._tools = Tools(self, take_request)
        self._server: grpc.Server | None = None
        self._port: int | None = None
        self._http_port: int | None = None

    @property
    def endpoint(self) -> str:
        """The host and port of Analytics Hub, which speaks gRPC without TLS."""
        return f"{_HOST}:{_started(self._port)}"

    @property
    def authorization_server(self) -> str:
        """The issuer of the login: `http://127.0.0.1:<port>`."""
        return f"http://{_HOST}:{_started(self._http_port)}"

    @property
    def mcp_url(self) -> str:
        """The URL of Octogen's MCP server."""
        return f"{self.authorization_server}{MCP_PATH}"

    @property
    def token_endpoint(self) -> str:
        """The URL at which a refresh token is exchanged for an access token."""
        return f"{self.authorization_server}{TOKEN_PATH}"

    @property
    def client_id(self) -> str:
        """The id of the built-in public client."""
        return CLIENT_ID

    @property
    def refresh_token(self) -> str:
        """A valid refresh token of the built-in client; after a rotation, the new one."""
        return self._login.refresh_token

    @property
    def access_token(self) -> str:
        """An access token of the built-in client, issued when the hub was made."""
        return self._login.access_token

    @property
    def environment(self) -> dict[str, str]:
        """The environment variables that point clients to the hub."""
        return {
            "OCTOGEN_MCP_URL": self.mcp_url,
            "OCTOGEN_MCP_TOKEN_ENDPOINT": self.token_endpoint,
            "OCTOGEN_MCP_CLIENT_ID": self.client_id,
            "OCTOGEN_MCP_REFRESH_TOKEN": self.refresh_token,
            "ANALYTICS_HUB_EMULATOR_HOST": self.endpoint,
        }

    def http_app(self, rest: ASGIApp) -> ASGIApp:
        """Return the application that serves MCP, the login and REST; it needs its lifespan."""
        return create_app(self._tools, self._login, self.authorization_server, rest)

    def start(self, http_port: int, port: int) -> None:
        """Start to serve Analytics Hub at a port, or a free one for 0; OSError if it is taken."""
        self._http_port = http_port
        pool = ThreadPoolExecutor(32, thread_name_prefix="octogen-sandbox-hub")
        server = grpc.server(pool, options=[("grpc.so_reuseport", 0)])
        server.add_generic_rpc_handlers([_handler(self)])
        try:
            self._port = server.add_insecure_port(f"{_HOST}:{port}")
        except RuntimeError as error:
            raise OSError(f"cannot listen on {_HOST}:{port}: {error}") from error
        server.start()
        self._server = server

    def stop(self) -> None:
        """End every call of Analytics Hub at once and release the port."""
        if self._server is not None:
            self._server.stop(grace=None).wait()
            self._server = None


def _started(port: int | None) -> int:
    if port is None:
        raise RuntimeError("the hub has no address before the sandbox runs: use it in a `with`")
    return port


def _handler(store: Listings) -> grpc.GenericRpcHandler:
    """Return the methods of Analytics Hub that a subscriber uses; any other is UNIMPLEMENTED."""

    def handle(name: str, deserialize: Any, answer: _Answer) -> grpc.RpcMethodHandler:
        def respond(request: Any, context: grpc.ServicerContext) -> Any:
            arguments = json_format.MessageToDict(
                _protobuf(request), preserving_proto_field_name=True
            )
            call = store.log(HubCall("grpc", name, arguments))
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

    test_permissions = iam_policy_pb2.TestIamPermissionsRequest.FromString
    methods: dict[str, tuple[Any, _Answer]] = {
        "ListListings": (ah.ListListingsRequest.deserialize, _list_listings),
        "GetListing": (
            ah.GetListingRequest.deserialize,
            lambda store, request: _listing_message(store.find(request.name)),
        ),
        "TestIamPermissions": (test_permissions, _test_permissions),
        "SubscribeListing": (ah.SubscribeListingRequest.deserialize, _subscribe),
        "ListSubscriptions": (ah.ListSubscriptionsRequest.deserialize, _list_subscriptions),
        "DeleteSubscription": (ah.DeleteSubscriptionRequest.deserialize, _delete),
    }
    return grpc.method_handlers_generic_handler(
        _SERVICE, {name: handle(name, *method) for name, method in methods.items()}
    )


def _list_listings(store: Listings, request: ah.ListListingsRequest) -> ah.ListListingsResponse:
    if store.with_project_id(request.parent) != store.exchange:
        raise Refusal("NOT_FOUND", f"Data exchange not found: {request.parent}.")
    found = [each for each in store.listings if each.access != "removed"]
    page, token = _page(found, request)
    return ah.ListListingsResponse(
        listings=[_listing_message(each) for each in page], next_page_token=token
    )


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
    wanted = request.destination_dataset
    subscription = store.subscribe(
        request.name,
        wanted.dataset_reference.project_id,
        wanted.dataset_reference.dataset_id,
        wanted.location,
        wanted.friendly_name or "",
    )
    return ah.SubscribeListingResponse(subscription=_subscription_message(subscription))


def _list_subscriptions(
    store: Listings, request: ah.ListSubscriptionsRequest
) -> ah.ListSubscriptionsResponse:
    _, project, _, location = request.parent.split("/")
    found = [
        each
        for each in store.subscriptions
        if each.project == project and each.location.lower() == location.lower()
    ]
    page, token = _page(found, request)
    return ah.ListSubscriptionsResponse(
        subscriptions=[_subscription_message(each) for each in page], next_page_token=token
    )


def _delete(store: Listings, request: ah.DeleteSubscriptionRequest) -> Any:
    """Answer a long-running operation that is done."""
    store.delete_subscription(request.name)
    operation = operations_pb2.Operation(name=f"{request.name}/operations/delete", done=True)
    operation.response.Pack(empty_pb2.Empty())
    return operation


def _page(items: Sequence[Any], request: Any) -> tuple[Sequence[Any], str]:
    """Return the page that a request asks for, and the token of the next one or an empty text."""
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
    """Return a subscription as a message.

    As Google does, it names the listing by the number of the publisher's project, and its linked
    resources only while it is active.
    """
    _, project, rest = subscription.listing.split("/", 2)
    listing = f"projects/{project_number(project)}/{rest}"
    message = ah.Subscription(
        name=subscription.name,
        listing=listing,
        state=getattr(ah.Subscription.State, subscription.state),
        resource_type=ah.SharedResourceType.BIGQUERY_DATASET,
        destination_dataset=ah.DestinationDataset(
            dataset_reference=ah.DestinationDatasetReference(
                project_id=subscription.project, dataset_id=subscription.dataset
            ),
            friendly_name=subscription.friendly_name,
            location=subscription.location,
        ),
    )
    if subscription.state == "STATE_ACTIVE":
        linked = f"projects/{subscription.project}/datasets/{subscription.dataset}"
        resource = ah.Subscription.LinkedResource(linked_dataset=linked, listing=listing)
        message.linked_dataset_map = {listing: resource}
        message.linked_resources = [resource]
    return message


def _protobuf(message: Any) -> Any:
    """Return the message of the protobuf runtime that a proto-plus message wraps, or `message`."""
    return type(message).pb(message) if hasattr(type(message), "pb") else message
