"""A client of Analytics Hub whose calls are bounded in time and retried."""

from __future__ import annotations

import concurrent.futures
import functools
import os
from typing import TYPE_CHECKING, Any, NoReturn

from typing_extensions import Self

from octogen_dagster.errors import (
    OctogenBigQueryAccessPendingError,
    OctogenBigQueryError,
    OctogenBigQueryUnavailableError,
)
from octogen_dagster.settings import require_extras
from octogen_dagster.sharing.bounded_calls import BoundedCalls
from octogen_dagster.sharing.datasets import Datasets
from octogen_dagster.sharing.denials import (
    is_disabled_api,
    missing_in_project,
    missing_on_exchange,
    named_cause,
    named_obstacle,
)
from octogen_dagster.sharing.google_credentials import load_credentials
from octogen_dagster.sharing.google_errors import (
    ANALYTICS_HUB,
    shortened,
    translate_google_errors,
    with_reason,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

    from google.api_core.exceptions import PermissionDenied
    from google.auth.credentials import Credentials
    from google.cloud import bigquery_analyticshub_v1 as ah

    from octogen_dagster.background import Deadline

EMULATOR_VARIABLE = "ANALYTICS_HUB_EMULATOR_HOST"
"""Environment variable with the `host:port` of a local server.

The client connects to it without TLS and without credentials.
"""

_SUBSCRIBE = "analyticshub.listings.subscribe"
_SUBSCRIPTION_OWNER = "roles/analyticshub.subscriptionOwner"
_PAGE_SIZE = 1000


class AnalyticsHub:
    """A client of Analytics Hub that connects at the first call.

    Use it in a `with` statement, or call `close()`.

    Args:
        credentials: Google credentials; by default Application Default Credentials.
        endpoint: `host:port` of a local server; by default `ANALYTICS_HUB_EMULATOR_HOST`, and
            Google if that is not set.
        timeout: Seconds for one attempt of a call.
        deadline: Seconds for a call with all its attempts, and for a list with all its pages.
        first_wait: The longest wait before the second attempt, in seconds; it doubles with each
            further attempt.
        within: The time for all calls: no attempt begins when it is over, or outlives it.

    Raises:
        MissingPackageError: Google's packages are not installed.
    """

    def __init__(
        self,
        credentials: Credentials | None = None,
        *,
        endpoint: str | None = None,
        timeout: float = 30.0,
        deadline: float = 120.0,
        first_wait: float = 0.5,
        within: Deadline | None = None,
    ) -> None:
        require_extras("Analytics Hub", "bigquery")
        self._credentials = credentials
        self._endpoint = endpoint or os.environ.get(EMULATOR_VARIABLE)
        self._deadline = deadline
        self._calls = BoundedCalls(timeout, deadline, first_wait, within)

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
        """Close the connections if there are any."""
        datasets = self.__dict__.pop("datasets", None)
        if datasets is not None:
            datasets.close()
        client = self.__dict__.pop("_client", None)
        if client is not None:
            client.transport.close()

    def listing(self, resource: str) -> ah.Listing | None:
        """Read a listing.

        Args:
            resource: The listing's resource name.

        Returns:
            None if there is no such listing, or these credentials may not see it.

        Raises:
            OctogenBigQueryError: The listing cannot be read.
        """
        from google.api_core import exceptions
        from google.cloud import bigquery_analyticshub_v1 as ah

        request = ah.GetListingRequest(name=resource)
        with translate_google_errors(ANALYTICS_HUB, f"Listing {resource}"):
            try:
                return self._calls.call(self._client.get_listing, request)
            except exceptions.NotFound:
                return None
            except exceptions.PermissionDenied as error:
                if named_obstacle(error):
                    raise
                return None

    def listings(self, exchange: str) -> Iterator[ah.Listing]:
        """Read the listings of an exchange, page by page.

        Args:
            exchange: The exchange's resource name.

        Raises:
            OctogenBigQueryError: The listings cannot be read.
        """
        from google.cloud import bigquery_analyticshub_v1 as ah

        request = ah.ListListingsRequest(parent=exchange, page_size=_PAGE_SIZE)
        subject = f"Exchange {exchange}"
        advice = missing_on_exchange(
            "analyticshub.listings.list", "roles/analyticshub.viewer", exchange
        )
        with translate_google_errors(ANALYTICS_HUB, subject, if_denied=advice):
            for page in self._calls.iter_pages(self._client.list_listings, request, subject):
                yield from page.listings

    def subscriptions(self, project: str, location: str) -> Iterator[ah.Subscription]:
        """Read the subscriptions of a project in a location, page by page.

        Args:
            project: The subscriber's project.
            location: The BigQuery location.

        Raises:
            OctogenBigQueryError: The subscriptions cannot be read.
        """
        for page in self._iter_subscription_pages(project, location):
            yield from page.subscriptions

    def subscription_messages(self, project: str, location: str) -> Iterator[Any]:
        """Read the subscriptions as protobuf messages, whose fields are 20 times as fast to read.

        Args:
            project: The subscriber's project.
            location: The BigQuery location.

        Raises:
            OctogenBigQueryError: The subscriptions cannot be read.
        """
        for page in self._iter_subscription_pages(project, location):
            yield from type(page).pb(page).subscriptions

    def _iter_subscription_pages(
        self, project: str, location: str
    ) -> Iterator[ah.ListSubscriptionsResponse]:
        from google.cloud import bigquery_analyticshub_v1 as ah

        parent = f"projects/{project}/locations/{location}"
        request = ah.ListSubscriptionsRequest(parent=parent, page_size=_PAGE_SIZE)
        subject = f"The subscriptions of {parent}"
        advice = missing_in_project("analyticshub.subscriptions.list", _SUBSCRIPTION_OWNER, project)
        with translate_google_errors(ANALYTICS_HUB, subject, if_denied=advice):
            yield from self._calls.iter_pages(self._client.list_subscriptions, request, subject)

    def may_subscribe(self, listing: str) -> bool:
        """Ask Analytics Hub if these credentials have the right to subscribe to a listing.

        Args:
            listing: The listing's resource name.

        Raises:
            OctogenBigQueryError: The permission cannot be read.
        """
        from google.iam.v1 import iam_policy_pb2  # type: ignore[import-untyped]

        request = iam_policy_pb2.TestIamPermissionsRequest(
            resource=listing, permissions=[_SUBSCRIBE]
        )
        with translate_google_errors(ANALYTICS_HUB, f"The permissions on listing {listing}"):
            response = self._calls.call(self._client.test_iam_permissions, request)
        return _SUBSCRIBE in response.permissions

    def subscribe(self, request: ah.SubscribeListingRequest) -> ah.Subscription | None:
        """Subscribe to a listing.

        The request may be sent more than once. If the response to the first attempt is lost, the
        next one finds the dataset that the first created.

        Args:
            request: The listing and the dataset to link to it.

        Returns:
            None if the project already has a dataset of that id.

        Raises:
            OctogenBigQueryAccessPendingError: The credentials do not have the right to subscribe
                yet.
            OctogenBigQueryError: The call failed, or was refused although the credentials have
                that right.
        """
        from google.api_core import exceptions

        wanted = request.destination_dataset
        subject = (
            f"Listing {request.name} as dataset {wanted.dataset_reference.project_id}."
            f"{wanted.dataset_reference.dataset_id} in location {wanted.location}"
        )
        with translate_google_errors(ANALYTICS_HUB, subject):
            try:
                return self._calls.call(self._client.subscribe_listing, request).subscription
            except exceptions.AlreadyExists:
                return None
            except exceptions.PermissionDenied as error:
                if is_disabled_api(error):
                    raise
                denial = error
        self._explain_denial(subject, request, denial)

    def _explain_denial(
        self, subject: str, request: ah.SubscribeListingRequest, denial: PermissionDenied
    ) -> NoReturn:
        """Tell a grant that has not arrived from a fault of the destination.

        Raises:
            OctogenBigQueryAccessPendingError: The grant has not arrived.
            OctogenBigQueryError: It has, or nobody knows.
        """
        code = with_reason("PERMISSION_DENIED", denial)
        reason = f"{code}: {shortened(denial.message)}"
        cause = named_cause(denial)
        try:
            granted = self.may_subscribe(request.name)
        except OctogenBigQueryError as error:
            unknown = error
        else:
            if granted:
                advice = cause or _fault_of_destination(request)
                raise OctogenBigQueryError(
                    f"{subject}: Analytics Hub refused ({reason}), although these Google "
                    f"credentials have the right to subscribe to the listing. {advice}"
                )
            raise OctogenBigQueryAccessPendingError(
                f"{subject}: Octogen's grant has not arrived yet ({reason}). It is asynchronous: "
                "try again in a few minutes. If it stays so, check that these Google credentials "
                f"are those of the registered principal.{f' {cause}' if cause else ''}"
            )
        raise type(unknown)(
            f"{subject}: Analytics Hub refused ({reason}), and whether Octogen's grant has arrived "
            f"is not known. {unknown}{f' {cause}' if cause else ''}"
        )

    def delete(self, subscription: str) -> None:
        """Delete a subscription with its linked dataset. A missing subscription is no error.

        Args:
            subscription: The subscription's resource name.

        Raises:
            OctogenBigQueryUnavailableError: The deletion does not end in time.
            OctogenBigQueryError: The deletion failed.
        """
        from google.api_core import exceptions
        from google.cloud import bigquery_analyticshub_v1 as ah

        subject = f"Subscription {subscription}"
        advice = missing_in_project(
            "analyticshub.subscriptions.delete", _SUBSCRIPTION_OWNER, subscription.split("/")[1]
        )
        with translate_google_errors(ANALYTICS_HUB, subject, if_denied=advice):
            try:
                request = ah.DeleteSubscriptionRequest(name=subscription)
                deletion = self._calls.call(self._client.delete_subscription, request)
                deletion.result(timeout=self._deadline)  # type: ignore[no-untyped-call]
            except exceptions.NotFound:
                return
            except concurrent.futures.TimeoutError:
                problem = f"its deletion did not end within {self._deadline:g} s. Try again later."
            else:
                return
        raise OctogenBigQueryUnavailableError(f"{subject}: {problem}")

    @functools.cached_property
    def datasets(self) -> Datasets:
        """The datasets of BigQuery, read with the same credentials."""
        return Datasets(None if self._endpoint else lambda: self._loaded_credentials)

    @functools.cached_property
    def _loaded_credentials(self) -> Credentials:
        return load_credentials(self._credentials)

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
            transport=transport_class(credentials=self._loaded_credentials)
        )


def _fault_of_destination(request: ah.SubscribeListingRequest) -> str:
    """Advice about a refusal that is not due to the listing and names no cause."""
    project = request.destination_dataset.dataset_reference.project_id
    advice = missing_in_project("bigquery.datasets.create", "roles/bigquery.user", project)
    return (
        f"{advice} A perimeter of VPC Service Controls may also forbid it. If Octogen's grant "
        "arrived only minutes ago, try again later."
    )
