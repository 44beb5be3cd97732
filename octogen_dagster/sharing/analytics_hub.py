"""Analytics Hub's API: making the client, and each call bounded, retried and explained."""

from __future__ import annotations

import concurrent.futures
import contextlib
import functools
import os
from typing import TYPE_CHECKING, Any

from typing_extensions import Self

from octogen_dagster.errors import (
    OctogenBigQueryAccessPendingError,
    OctogenBigQueryError,
    OctogenBigQueryUnavailableError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import TracebackType

    from google.auth.credentials import Credentials
    from google.cloud import bigquery_analyticshub_v1 as ah

EMULATOR_VARIABLE = "ANALYTICS_HUB_EMULATOR_HOST"
"""`host:port` of a local server, spoken to in the clear and without credentials."""

_SCOPES = ["https://www.googleapis.com/auth/cloud-platform"]
_SUBSCRIBE = "analyticshub.listings.subscribe"
_PAGE_SIZE = 1000
_FIRST_WAIT_SECONDS = 0.5
_MAX_MESSAGE_LENGTH = 400
_TRANSIENT = {
    "ABORTED",
    "DEADLINE_EXCEEDED",
    "INTERNAL",
    "RESOURCE_EXHAUSTED",
    "UNAVAILABLE",
}
_LOG_IN = (
    "Run `gcloud auth application-default login`, or let GOOGLE_APPLICATION_CREDENTIALS name a "
    "file with credentials."
)
_ADVICE = {
    "INVALID_ARGUMENT": "Correct the name or the location; a linked dataset is where its listing "
    "is.",
    "NOT_FOUND": "Check the name; a listing may also have been withdrawn.",
    "PERMISSION_DENIED": "Let an administrator of the project named above grant these Google "
    "credentials the right to do this.",
    "UNAUTHENTICATED": _LOG_IN,
}


class AnalyticsHub:
    """Analytics Hub, connected at the first call. Use it in a `with`, or call `close()`.

    Args:
        credentials: Google credentials; by default Application Default Credentials.
        endpoint: `host:port` of a local server; by default `ANALYTICS_HUB_EMULATOR_HOST`, and
            without it Google.
        timeout: Seconds for one try of a call.
        deadline: Seconds for a call with all its tries.
    """

    def __init__(
        self,
        credentials: Credentials | None = None,
        *,
        endpoint: str | None = None,
        timeout: float = 30.0,
        deadline: float = 120.0,
    ) -> None:
        self._credentials = credentials
        self._endpoint = endpoint or os.environ.get(EMULATOR_VARIABLE)
        self._timeout = min(timeout, deadline)
        self._deadline = deadline

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection, if there is one."""
        client = self.__dict__.pop("_client", None)
        if client is not None:
            client.transport.close()

    def listing(self, resource: str) -> ah.Listing | None:
        """A listing, by its resource name.

        Returns:
            None when there is none that these credentials may see.

        Raises:
            OctogenBigQueryError: It cannot be read.
        """
        from google.api_core import exceptions
        from google.cloud import bigquery_analyticshub_v1 as ah

        with _explained(f"Listing {resource}"):
            try:
                return self._client.get_listing(ah.GetListingRequest(name=resource), **self._bounds)
            except (exceptions.PermissionDenied, exceptions.NotFound):
                return None

    def listings(self, exchange: str) -> Iterator[ah.Listing]:
        """The listings of an exchange, all pages of them.

        Raises:
            OctogenBigQueryError: They cannot be read.
        """
        from google.cloud import bigquery_analyticshub_v1 as ah

        request = ah.ListListingsRequest(parent=exchange, page_size=_PAGE_SIZE)
        with _explained(f"Exchange {exchange}"):
            pager = self._client.list_listings(request, **self._bounds)
            for page in _pages(pager, f"Exchange {exchange}"):
                yield from page.listings

    def subscriptions(self, project: str, location: str) -> Iterator[ah.Subscription]:
        """The subscriptions of a project in a location, all pages of them.

        Raises:
            OctogenBigQueryError: They cannot be read.
        """
        for page in self._subscription_pages(project, location):
            yield from page.subscriptions

    def subscription_messages(self, project: str, location: str) -> Iterator[Any]:
        """`subscriptions` as protobuf messages, whose fields are read twenty times as fast.

        Raises:
            OctogenBigQueryError: They cannot be read.
        """
        for page in self._subscription_pages(project, location):
            yield from type(page).pb(page).subscriptions

    def _subscription_pages(
        self, project: str, location: str
    ) -> Iterator[ah.ListSubscriptionsResponse]:
        from google.cloud import bigquery_analyticshub_v1 as ah

        parent = f"projects/{project}/locations/{location}"
        request = ah.ListSubscriptionsRequest(parent=parent, page_size=_PAGE_SIZE)
        with _explained(f"The subscriptions of {parent}"):
            pager = self._client.list_subscriptions(request, **self._bounds)
            yield from _pages(pager, f"The subscriptions of {parent}")

    def may_subscribe(self, listing: str) -> bool:
        """Whether these credentials have the right to subscribe to a listing.

        Raises:
            OctogenBigQueryError: Analytics Hub does not say.
        """
        from google.iam.v1 import iam_policy_pb2  # type: ignore[import-untyped]

        request = iam_policy_pb2.TestIamPermissionsRequest(
            resource=listing, permissions=[_SUBSCRIBE]
        )
        with _explained(f"Listing {listing}"):
            answer = self._client.test_iam_permissions(request, **self._bounds)
        return _SUBSCRIBE in answer.permissions

    def subscribe(self, request: ah.SubscribeListingRequest) -> ah.Subscription | None:
        """Subscribe to a listing.

        It may be sent more than once: a try whose answer got lost is seen as a dataset that is
        already there.

        Returns:
            None when the project already has a dataset of that id.

        Raises:
            OctogenBigQueryAccessPendingError: The credentials may not subscribe, yet.
            OctogenBigQueryError: It failed.
        """
        from google.api_core import exceptions

        wanted = request.destination_dataset
        subject = (
            f"Listing {request.name} as dataset {wanted.dataset_reference.project_id}."
            f"{wanted.dataset_reference.dataset_id} in location {wanted.location}"
        )
        with _explained(subject):
            try:
                return self._client.subscribe_listing(request, **self._bounds).subscription
            except exceptions.AlreadyExists:
                return None
            except exceptions.PermissionDenied as error:
                reason = _shortened(error.message)
        raise OctogenBigQueryAccessPendingError(
            f"{subject}: Octogen's grant has not arrived yet (PERMISSION_DENIED: {reason}). It is "
            "asynchronous: try again in a few minutes. If it stays so, check that these Google "
            "credentials are those of the registered principal, and that they may create "
            f"datasets in project {wanted.dataset_reference.project_id}."
        )

    def delete(self, subscription: str) -> None:
        """Delete a subscription, and its linked dataset with it; nothing if it is gone already.

        Raises:
            OctogenBigQueryUnavailableError: It does not end in time.
            OctogenBigQueryError: It failed.
        """
        from google.api_core import exceptions
        from google.cloud import bigquery_analyticshub_v1 as ah

        with _explained(f"Subscription {subscription}"):
            try:
                request = ah.DeleteSubscriptionRequest(name=subscription)
                deletion = self._client.delete_subscription(request, **self._bounds)
                deletion.result(timeout=self._deadline)  # type: ignore[no-untyped-call]
            except exceptions.NotFound:
                return
            except concurrent.futures.TimeoutError:
                problem = f"its deletion did not end within {self._deadline:g} s. Try again later."
            else:
                return
        raise OctogenBigQueryUnavailableError(f"Subscription {subscription}: {problem}")

    @functools.cached_property
    def _client(self) -> ah.AnalyticsHubServiceClient:
        import grpc
        from google.cloud import bigquery_analyticshub_v1 as ah

        transport_class = ah.AnalyticsHubServiceClient.get_transport_class("grpc")
        if self._endpoint:
            channel = grpc.insecure_channel(
                self._endpoint.removeprefix("http://").rstrip("/"),
                options=[("grpc.enable_http_proxy", 0)],
            )
            return ah.AnalyticsHubServiceClient(transport=transport_class(channel=channel))
        return ah.AnalyticsHubServiceClient(
            transport=transport_class(credentials=_usable(self._credentials))
        )

    @functools.cached_property
    def _bounds(self) -> dict[str, Any]:
        """The arguments that bound and repeat a call."""
        from google.api_core import retry

        again = retry.Retry(
            predicate=lambda error: _code(error) in _TRANSIENT,
            initial=_FIRST_WAIT_SECONDS,
            maximum=10.0,
            multiplier=2.0,
            timeout=self._deadline,
        )
        return {"retry": again, "timeout": self._bounded}

    def _bounded(self, call: Callable[..., Any]) -> Callable[..., Any]:
        return functools.partial(call, timeout=self._timeout)


def _usable(credentials: Credentials | None) -> Credentials:
    """Credentials that hold a token: a refusal shows here, and not as an endless retry."""
    import google.auth
    from google.auth.credentials import with_scopes_if_required
    from google.auth.transport.requests import Request

    if credentials is None:
        credentials, _ = google.auth.default(scopes=_SCOPES)
    else:
        credentials = with_scopes_if_required(credentials, _SCOPES)  # type: ignore[no-untyped-call]
    if not credentials.valid:
        credentials.refresh(Request())
    return credentials


def _pages(pager: Any, subject: str) -> Iterator[Any]:
    """The pages, each once."""
    seen = set()
    for page in pager.pages:
        yield page
        if page.next_page_token in seen:
            raise OctogenBigQueryError(
                f"{subject}: the pages go round in a circle, so they cannot be read completely. "
                "Try again later."
            )
        seen.add(page.next_page_token)


@contextlib.contextmanager
def _explained(subject: str) -> Iterator[None]:
    """Turn what Google's libraries raise into an error of this project."""
    from google.api_core import exceptions
    from google.auth import exceptions as auth

    kind = OctogenBigQueryError
    try:
        yield
    except auth.DefaultCredentialsError as error:
        problem = f"there are no Google credentials ({_shortened(error)}). {_LOG_IN}"
    except auth.TransportError as error:
        kind = OctogenBigQueryUnavailableError
        problem = f"Google's token endpoint did not answer ({_shortened(error)}). Try again later."
    except auth.GoogleAuthError as error:
        problem = f"the Google credentials cannot be used ({_shortened(error)}). {_LOG_IN}"
    except exceptions.RetryError as error:
        kind = OctogenBigQueryUnavailableError
        code, said = _code(error.cause), _shortened(getattr(error.cause, "message", error.cause))
        problem = f"Analytics Hub did not answer in time ({code}: {said}). Try again later."
    except exceptions.GoogleAPICallError as error:
        code = _code(error)
        advice = _ADVICE.get(code, "Try again later, or report it to Octogen.")
        problem = f"Analytics Hub refused ({code}: {_shortened(error.message)}). {advice}"
    else:
        return
    raise kind(f"{subject}: {problem}")


def _code(error: object) -> str:
    """The name of a gRPC status code."""
    status = getattr(error, "grpc_status_code", None)
    return str(status.name) if status is not None else type(error).__name__


def _shortened(text: object) -> str:
    return " ".join(str(text).split())[:_MAX_MESSAGE_LENGTH].rstrip(".")
