"""autosubscribe: subscribe a project to all shared listings. Repeated calls are safe."""

from __future__ import annotations

import contextlib
from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from octogen_dagster.errors import (
    OctogenBigQueryAccessPendingError,
    OctogenBigQueryError,
    OctogenBigQueryInputError,
    OctogenBigQueryUnreachableError,
    OctogenError,
)
from octogen_dagster.sharing.names import (
    ListingName,
    SubscriptionPlan,
    checked_project,
    plan_subscription,
)
from octogen_dagster.sharing.octogen import (
    Action,
    decide,
    read_catalog_of,
    read_offers,
)
from octogen_dagster.sharing.subscribe import (
    BigQuerySubscriptionResult,
    find_subscription,
    subscribe,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from octogen_dagster.control_plane.tools import Cell, OctogenMCP, Subscriber
    from octogen_dagster.sharing.hub import AnalyticsHub


@dataclass(frozen=True, slots=True)
class CatalogOutcome:
    """The result of `autosubscribe` for one catalog.

    The JSON output of `bq autosubscribe` contains these fields.
    """

    catalog_key: str | None
    action: Action
    status: str | None = None
    reason_code: str | None = None
    listing_resource: str | None = None
    linked_dataset: str | None = None  # existing or planned
    sample_query: str | None = None
    refresh_status: str | None = None  # Octogen's status after the refresh
    message: str | None = None


@dataclass(frozen=True, slots=True)
class AutosubscribeResult:
    """The result of `autosubscribe`. `catalogs` is sorted by catalog key."""

    applied: bool
    subscriber_project_id: str
    subscriber_principal: str
    subscriber_id: str | None
    registered_subscriber: bool
    would_register_subscriber: bool
    catalogs: list[CatalogOutcome] = field(default_factory=list)

    @property
    def summary(self) -> dict[str, int]:
        """The number of catalogs for each action."""
        return dict(Counter(str(catalog.action) for catalog in self.catalogs))

    def as_dict(self) -> dict[str, Any]:
        """Return the result as a dictionary that can be encoded as JSON."""
        return asdict(self) | {"summary": self.summary}


class _Attempt(NamedTuple):
    """The action for an offer, and its result."""

    action: Action
    message: str | None = None
    result: BigQuerySubscriptionResult | None = None
    cell: Cell | None = None  # the cell that Octogen returned after the refresh
    error: OctogenError | None = None


@dataclass(frozen=True)
class SubscriptionPass:
    """Subscribes to the listings that Octogen offers to one subscriber.

    `datasets` has the same meaning as in `subscribe`.
    """

    octogen: OctogenMCP
    hub: AnalyticsHub
    project: str
    principal: str
    friendly_name: str | None = None
    datasets: Mapping[str, str] = field(default_factory=dict)
    log: Callable[[str], object] = lambda _: None

    def plan(self, offer: Cell) -> SubscriptionPlan:
        resource, dataset_id = offer.listing_resource or "", offer.linked_dataset
        return plan_subscription(
            resource, self.project, dataset_id, offer.location, self.friendly_name
        )

    def attempt(
        self, offer: Cell, subscriber: Subscriber | None, *, apply: bool = True
    ) -> _Attempt:
        """Subscribe to an offer if necessary, then refresh the offer's status at Octogen."""
        action, message = decide(offer, subscriber)
        if action is not Action.WOULD_SUBSCRIBE:
            return _Attempt(action, message)
        try:
            plan = self.plan(offer)
            if not apply:
                return _Attempt(action, message)
            result = subscribe(self.hub, plan, datasets=self.datasets)
        except OctogenBigQueryAccessPendingError as error:
            return _Attempt(Action.PENDING, str(error), error=error)
        except OctogenError as error:
            return _Attempt(Action.ERROR, str(error), error=error)
        try:
            cell = self.octogen.refresh_status(
                offer.catalog_key or "",
                self.principal,
                share_schema=offer.share_schema,
                schema_version=offer.schema_version,
            )
        except OctogenError as error:
            problem = f"The project is subscribed, but refreshing Octogen's status failed: {error}"
            return _Attempt(Action.ERROR, problem, result)
        done = Action.ALREADY_SUBSCRIBED if result.already_subscribed else Action.SUBSCRIBED
        return _Attempt(done, None, result, cell)


def autosubscribe(
    octogen: OctogenMCP,
    hub: AnalyticsHub,
    *,
    project: str,
    principal: str,
    catalogs: Sequence[str] = (),
    friendly_name: str | None = None,
    apply: bool = False,
    report: Callable[[CatalogOutcome], None] = lambda _: None,
) -> AutosubscribeResult:
    """Register the subscriber if necessary, and subscribe to all listings that Octogen offers.

    After each subscription, the offer's status at Octogen is refreshed. If one catalog fails, the
    other catalogs are still processed. A second call changes nothing. If `apply` is false, nothing
    is changed, and the planned actions are returned. `report` is called after each catalog.
    """
    checked_project(project)
    shared = octogen.listings(catalogs)
    found = read_offers(octogen, shared, project, principal, catalogs, register=apply)
    result = AutosubscribeResult(
        applied=apply,
        subscriber_project_id=project,
        subscriber_principal=principal,
        subscriber_id=found.subscriber.subscriber_id if found.subscriber else None,
        registered_subscriber=apply and not found.was_registered,
        would_register_subscriber=not (apply or found.was_registered),
    )
    this = SubscriptionPass(octogen, hub, project, principal, friendly_name)
    silent: _Attempt | None = None
    for offer in found.offers:
        attempt = this.attempt(offer, found.subscriber, apply=apply and silent is None)
        if isinstance(attempt.error, OctogenBigQueryUnreachableError):
            silent = attempt
        if silent and attempt.action is Action.WOULD_SUBSCRIBE:
            attempt = silent  # every further call would time out as well
        outcome = _outcome(offer, found.subscriber, attempt)
        result.catalogs.append(outcome)
        report(outcome)
    return result


def _outcome(offer: Cell, subscriber: Subscriber | None, attempt: _Attempt) -> CatalogOutcome:
    linked, cell = attempt.result, attempt.cell
    status, reason = offer.status, offer.reason_code
    if subscriber is not None and not subscriber.is_enabled:
        status, reason = subscriber.desired_state, None
    if cell is not None:
        status, reason = cell.status or status, cell.reason_code or reason
    dataset = offer.linked_dataset
    with contextlib.suppress(OctogenBigQueryInputError):
        dataset = dataset or ListingName.parse(offer.listing_resource or "").default_dataset_id
    return CatalogOutcome(
        catalog_key=offer.catalog_key,
        action=attempt.action,
        status=status,
        reason_code=reason,
        listing_resource=offer.listing_resource,
        linked_dataset=linked.linked_dataset if linked else dataset,
        sample_query=linked.sample_query if linked else offer.sample_query,
        refresh_status=cell.status if cell else None,
        message=attempt.message,
    )


def subscribe_with_octogen(
    this: SubscriptionPass, listing: ListingName, dataset_id: str | None
) -> tuple[SubscriptionPlan, BigQuerySubscriptionResult]:
    """Subscribe to one listing that Octogen offers.

    Raise an error if the project is not subscribed afterwards.
    """
    shared = read_catalog_of(this.octogen, listing)
    found = read_offers(this.octogen, shared, this.project, this.principal, register=True)
    offer = found.of(listing, dataset_id)
    plan = this.plan(offer)
    action, message, result, _, error = this.attempt(offer, found.subscriber)
    if error:
        raise error
    subject = f"Listing {listing}: {message}"
    is_enabled = found.subscriber is not None and found.subscriber.is_enabled
    if action is Action.ALREADY_ACTIVE:
        return plan, subscribe(this.hub, plan, datasets=this.datasets)
    if action is Action.PENDING and is_enabled:
        result = find_subscription(this.hub, plan, this.datasets)
        if result is None:
            raise OctogenBigQueryAccessPendingError(subject)
        this.log(f"{subject} The project is already subscribed.")
    elif result is None:
        raise OctogenBigQueryError(subject)
    elif message:
        this.log(subject)
    return plan, result


def register_and_subscribe(
    this: SubscriptionPass, listing: ListingName, dataset_id: str | None
) -> tuple[SubscriptionPlan, BigQuerySubscriptionResult]:
    """Register the subscriber if necessary, and subscribe to a listing that is not a catalog.

    Octogen grants access only to registered subscribers. The shared listings are not read, because
    Octogen's MCP server might not return such a listing.
    """
    found = read_offers(this.octogen, [], this.project, this.principal, register=True)
    subscriber = found.subscriber
    if subscriber is not None and not subscriber.is_enabled:
        this.log(
            f"Octogen reports the state {subscriber.desired_state} for the subscriber "
            f"{this.principal}. If the grant does not arrive, enable the subscriber."
        )
    plan = plan_subscription(str(listing), this.project, dataset_id)
    return plan, subscribe(this.hub, plan, datasets=this.datasets)
