"""Analytics Hub client for listings and subscriptions, with retries and timeouts."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Self

from octogen_dagster.background import Deadline
from octogen_dagster.errors import (
    OctogenBigQueryAccessPendingError,
    OctogenBigQueryError,
    OctogenBigQueryInputError,
    OctogenBigQueryUnreachableError,
)
from octogen_dagster.sharing.google_errors import (
    ANALYTICS_HUB,
    is_disabled_api,
    load_credentials,
    missing_in_project,
    missing_on_exchange,
    named_cause,
    shortened,
    translate_google_errors,
    with_reason,
)
from octogen_dagster.sharing.names import ListingName, SubscriptionPlan, checked_exchange
from octogen_dagster.validation import require_extras

if TYPE_CHECKING:
    from google.api_core.exceptions import PermissionDenied
    from google.auth.credentials import Credentials
    from google.cloud import bigquery_analyticshub_v1 as ah

EMULATOR_VARIABLE = "ANALYTICS_HUB_EMULATOR_HOST"
"""Environment variable with the `host:port` of a local server.

The client connects to this server without TLS and without credentials.
"""

ACTIVE, STALE, REVOKED = "STATE_ACTIVE", "STATE_STALE", "STATE_INACTIVE"
FIRST_WAIT = 0.5
"""Maximum wait before the second attempt of a call, in seconds.

The maximum doubles with each attempt.
"""

_SUBSCRIBE = "analyticshub.listings.subscribe"
_SUBSCRIPTION_OWNER = "roles/analyticshub.subscriptionOwner"
_PAGE_SIZE = 1000
_OPTIONAL_DEADLINE = 10.0
"""Time limit for optional calls, in seconds."""

_PUBSUB_TOPIC = 2  # ah.SharedResourceType
_COVERAGE_PREFIX = "coverage_"
_TAKE_ALL = "To subscribe to this listing, set only_catalogs=False."


@dataclass(frozen=True, slots=True)
class Listing:
    """A listing from a listing source."""

    name: ListingName
    status: str | None = None
    """The status or the reason code that Octogen reports for the listing and one subscriber.

    An empty string means that Octogen reports no status. None means that the source provides no
    statuses or that the subscriber is not registered.
    """


@dataclass(frozen=True, slots=True)
class Listings:
    """The distinct listings from a source, sorted by name."""

    listings: list[Listing]
    left_out: list[str] = field(default_factory=list)  # messages about excluded listings
    notes: list[str] = field(default_factory=list)  # messages about included listings


@dataclass(frozen=True, slots=True)
class Subscription:
    """A subscription to a listing.

    `dataset_id` is None if Google does not report the linked dataset.
    """

    name: str
    listing: ListingName
    state: str  # might be a value this version does not know
    project: str | None  # the project id; None if only the number is known
    dataset_id: str | None

    @property
    def in_force(self) -> bool:
        """True if the subscription gives access to data."""
        return self.state in (ACTIVE, STALE)


class AnalyticsHub:
    """An Analytics Hub client for use in a `with` statement.

    The client connects on the first call. `timeout` is the time limit for one attempt, in seconds.
    `deadline` is the time limit for a call with all its attempts, or for a list with all its pages,
    in seconds. `within` is the deadline for all calls together.
    """

    def __init__(
        self,
        credentials: Credentials | None = None,
        *,
        endpoint: str | None = None,
        timeout: float = 30.0,
        deadline: float = 120.0,
        within: Deadline | None = None,
    ) -> None:
        require_extras("Analytics Hub", "bigquery")
        self._credentials = credentials
        self._endpoint = endpoint or os.environ.get(EMULATOR_VARIABLE)
        self._timeout = timeout
        self._deadline = deadline
        self._within = within or Deadline.after(float("inf"))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        client = self.__dict__.pop("_client", None)
        if client is not None:
            client.transport.close()

    def list_listings(self, exchange: str, *, only_catalogs: bool = True) -> Listings:
        """Read the listings in an exchange. Listings without a linked dataset are excluded.

        Requires the viewer role on the exchange. `only_catalogs` also excludes commercial listings
        and coverage lists.
        """
        exchange = checked_exchange(exchange)
        subject = f"Exchange {exchange}"
        advice = missing_on_exchange(
            "analyticshub.listings.list", "roles/analyticshub.viewer", exchange
        )
        with translate_google_errors(ANALYTICS_HUB, subject, if_denied=advice):
            pages = self._pages(self._client.list_listings, exchange, subject)
            # Reading a protobuf message's field is 20 times faster than through its wrapper.
            messages = [message for page in pages for message in type(page).pb(page).listings]
        return _sorted_out(messages, exchange, only_catalogs=only_catalogs)

    def list_subscriptions(self, project: str, location: str) -> list[Subscription]:
        """Read a project's subscriptions to listings in a location."""
        parent = f"projects/{project}/locations/{location}"
        subject = f"The subscriptions of {parent}"
        advice = missing_in_project("analyticshub.subscriptions.list", _SUBSCRIPTION_OWNER, project)
        with translate_google_errors(ANALYTICS_HUB, subject, if_denied=advice):
            pages = self._pages(self._client.list_subscriptions, parent, subject)
            messages = [message for page in pages for message in type(page).pb(page).subscriptions]
        found = []
        for message in messages:
            with contextlib.suppress(OctogenBigQueryInputError):  # subscribed to a whole exchange
                found.append(_subscription(message, ListingName.parse(message.listing)))
        return found

    def may_subscribe(self, listing: ListingName) -> bool:
        """Return True if the client's credentials have permission to subscribe to a listing."""
        from google.iam.v1 import iam_policy_pb2  # type: ignore[import-untyped]

        request = iam_policy_pb2.TestIamPermissionsRequest(
            resource=str(listing), permissions=[_SUBSCRIBE]
        )
        with translate_google_errors(ANALYTICS_HUB, f"The permissions on listing {listing}"):
            response = self._client.test_iam_permissions(request, **self._bounds())
        return _SUBSCRIBE in response.permissions

    def export_restrictions(self, listing: ListingName) -> dict[str, bool]:
        """Return the restrictions in a listing's `restricted_export_config`, if there are any."""
        from google.cloud import bigquery_analyticshub_v1 as ah

        with translate_google_errors(ANALYTICS_HUB, f"Listing {listing}"):
            request = ah.GetListingRequest(name=str(listing))
            found = self._client.get_listing(request, **self._bounds(_OPTIONAL_DEADLINE))
        return _export_restrictions(ah.Listing.pb(found))

    def subscribe(self, plan: SubscriptionPlan) -> Subscription | None:
        """Subscribe to a listing and create its linked dataset.

        Return None if the dataset already exists. The request might be sent more than once. If the
        first response is lost, the retry finds the dataset that the first attempt created.
        """
        from google.api_core import exceptions
        from google.cloud import bigquery_analyticshub_v1 as ah

        request = ah.SubscribeListingRequest(
            name=str(plan.listing),
            destination_dataset=ah.DestinationDataset(
                dataset_reference=ah.DestinationDatasetReference(
                    project_id=plan.project, dataset_id=plan.dataset_id
                ),
                location=plan.location,
                friendly_name=plan.friendly_name,
            ),
        )
        subject = (
            f"Listing {plan.listing} as dataset {plan.project}.{plan.dataset_id} in location "
            f"{plan.location}"
        )
        with translate_google_errors(ANALYTICS_HUB, subject):
            try:
                response = self._client.subscribe_listing(request, **self._bounds())
            except exceptions.AlreadyExists:
                return None
            except exceptions.PermissionDenied as error:
                if is_disabled_api(error):
                    raise
                raise self._denied(subject, plan, error) from None
        return _subscription(ah.Subscription.pb(response.subscription), plan.listing)

    def _denied(
        self, subject: str, plan: SubscriptionPlan, denial: PermissionDenied
    ) -> OctogenBigQueryError:
        """Return an error that explains why a subscription was denied.

        Either Octogen's grant has not arrived, or the destination project is the cause.
        """
        code = with_reason("PERMISSION_DENIED", denial)
        reason = f"{code}: {shortened(denial.message)}"
        cause = named_cause(denial)
        try:
            granted = self.may_subscribe(plan.listing)
        except OctogenBigQueryError as unknown:
            return type(unknown)(
                f"{subject}: Analytics Hub rejected the subscription ({reason}). It is unknown "
                f"whether Octogen's grant has arrived. {unknown}{f' {cause}' if cause else ''}"
            )
        if granted:
            return OctogenBigQueryError(
                f"{subject}: Analytics Hub rejected the subscription ({reason}), although these "
                "Google credentials are allowed to subscribe to the listing. "
                f"{cause or _advice_for_destination(plan.project)}"
            )
        return OctogenBigQueryAccessPendingError(
            f"{subject}: Octogen's grant has not arrived yet ({reason}). Grants are asynchronous, "
            "so try again in a few minutes. If the error persists, check that these Google "
            f"credentials belong to the registered principal.{f' {cause}' if cause else ''}"
        )

    def _bounds(self, deadline: float | None = None) -> dict[str, Any]:
        """Return the retry and timeout arguments for one call."""
        from google.api_core import exceptions, retry

        seconds = self._within.within(min(self._deadline, deadline or self._deadline)).left
        if not seconds:
            late = exceptions.DeadlineExceeded("no time was left for the request")  # type: ignore[no-untyped-call]
            raise exceptions.RetryError("Too late.", late)  # type: ignore[no-untyped-call]
        # Not Google's `if_transient_error`, which gives up on the first timeout.
        transient = retry.if_exception_type(
            exceptions.Aborted,
            exceptions.GatewayTimeout,
            exceptions.InternalServerError,
            exceptions.ServiceUnavailable,
            exceptions.TooManyRequests,
        )
        # At most half of the time, so that there can be a second attempt.
        attempt = min(self._timeout, seconds / 2)
        # The last attempt begins early enough to end in time.
        policy = retry.Retry(transient, initial=FIRST_WAIT, maximum=10.0, timeout=seconds - attempt)
        return {"retry": policy, "timeout": attempt}

    def _pages(self, method: Any, parent: str, subject: str) -> Iterator[Any]:
        """Yield the pages of a list. Raise an error if the deadline passes before the last page.

        Google's pager limits the size of a page but not the number of pages.
        """
        request = {"parent": parent, "page_size": _PAGE_SIZE}
        within = self._within.within(self._deadline)
        seconds, tokens = within.left, set()
        for number, page in enumerate(method(request, **self._bounds()).pages, 1):
            yield page
            token: str = page.next_page_token
            if token in tokens:
                raise OctogenBigQueryError(
                    f"{subject}: Analytics Hub sent the same page token twice, so the list cannot "
                    "be read completely. Try again later."
                )
            if token and not within.left:
                raise OctogenBigQueryUnreachableError(
                    f"{subject}: {number} pages were read within {seconds:.3g} s, but there are "
                    "more pages. Try again later."
                )
            tokens.add(token)

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
            transport=transport_class(credentials=load_credentials(self._credentials))
        )


def named_listings(resources: Iterable[str]) -> Listings:
    """Return the listings with the given resource names."""
    return Listings(in_order(Listing(ListingName.parse(resource)) for resource in resources))


def in_order(listings: Iterable[Listing]) -> list[Listing]:
    """Return the distinct listings, sorted by name."""
    each_once = {each.name.key: each for each in listings}
    return sorted(each_once.values(), key=lambda each: str(each.name))


def _sorted_out(messages: Iterable[Any], exchange: str, *, only_catalogs: bool) -> Listings:
    """Separate the supported listings in an exchange from the excluded listings."""
    found = Listings([])
    for message in messages:
        try:
            name = ListingName.parse(message.name)
        except OctogenBigQueryInputError as error:
            found.left_out.append(f"A listing in exchange {exchange}: {error}")
            continue
        problem = _problem(message, only_catalogs=only_catalogs)
        if problem:
            found.left_out.append(f"Listing {name} {problem}")
            continue
        found.listings.append(Listing(name))
        if message.log_linked_dataset_query_user_email:
            found.notes.append(
                f"The publisher of listing {name} can see the e-mail address of everyone who "
                "queries its linked dataset. Inform your users."
            )
        if restrictions := _export_restrictions(message):
            found.notes.append(
                f"Listing {name} restricts exports of its linked dataset (restricted_export_config:"
                f" {', '.join(restrictions)}). Google rejects copies and exports."
            )
    return replace(found, listings=in_order(found.listings))


def _problem(message: Any, *, only_catalogs: bool) -> str | None:
    """Return the reason why a listing in an exchange is excluded, or None if it is included.

    Only listings that are certainly not catalogs are excluded, because Octogen might change the
    names of catalog listings.
    """
    if message.resource_type == _PUBSUB_TOPIC or message.HasField("pubsub_topic"):
        return "shares a Pub/Sub topic, not a dataset."
    if message.allow_only_metadata_sharing:
        return "shares only metadata, so you cannot subscribe to it."
    if not only_catalogs:
        return None
    if message.HasField("commercial_info"):
        return f"is sold on Google Cloud Marketplace. {_TAKE_ALL}"
    if message.name.rpartition("/")[2].startswith(_COVERAGE_PREFIX):
        return f"is a coverage list, not a catalog. {_TAKE_ALL}"
    return None


def _export_restrictions(message: Any) -> dict[str, bool]:
    """Return the restrictions that are enabled in a listing's `restricted_export_config`."""
    config = message.restricted_export_config
    names = "enabled", "restrict_direct_table_access", "restrict_query_result"
    return {name: True for name in names if getattr(config, name)} if config.enabled else {}


def _subscription(message: Any, listing: ListingName) -> Subscription:
    """Convert a subscription. Google reports the linked dataset in one of three fields."""
    reference = message.destination_dataset.dataset_reference
    places = [(reference.project_id, reference.dataset_id)]
    for resource in [*message.linked_dataset_map.values(), *message.linked_resources]:
        _, project, _, dataset_id = [*resource.linked_dataset.split("/"), *[""] * 4][:4]
        places.append((project, dataset_id))
    named = [place for place in places if place[1]]
    # Queries require the project id. They do not accept the project number.
    ids = [project for project, _ in named if project and not project.isdecimal()]
    return Subscription(
        name=message.name,
        listing=listing,
        state=_state_name(message.state),
        project=ids[0] if ids else None,
        dataset_id=named[0][1] if named else None,
    )


@functools.cache
def _state_name(state: int) -> str:
    """Return the name of a subscription state, or its number if the state is unknown."""
    from google.cloud import bigquery_analyticshub_v1 as ah

    try:
        return str(ah.Subscription.State(state).name)
    except ValueError:
        return str(state)


def _advice_for_destination(project: str) -> str:
    """Return advice for a rejection that is probably caused by the destination project."""
    advice = missing_in_project("bigquery.datasets.create", "roles/bigquery.user", project)
    return (
        f"{advice} A VPC Service Controls perimeter might also block the request. If Octogen "
        "granted access only minutes ago, try again later."
    )
