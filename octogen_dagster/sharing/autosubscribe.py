"""autosubscribe: one idempotent pass that subscribes a project to what Octogen shares with it.

`subscribe_with_octogen` does the same for one listing.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

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
    Offer,
    confirm,
    decide,
    is_enabled,
    is_named,
    read_offers,
)
from octogen_dagster.sharing.subscribe import (
    BigQuerySubscriptionResult,
    find_subscription,
    subscribe,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from octogen_dagster.control_plane.tools import OctogenMCP
    from octogen_dagster.sharing.hub import AnalyticsHub


@dataclass(frozen=True, slots=True)
class CatalogOutcome:
    """The outcome of a pass for one catalog; the command prints it as JSON."""

    catalog_key: str | None
    action: Action
    status: str | None = None
    reason_code: str | None = None
    listing_resource: str | None = None
    linked_dataset: str | None = None  # the one it has, or would get
    sample_query: str | None = None
    refresh_status: str | None = None  # what Octogen sent when it was told to look again
    message: str | None = None


@dataclass(frozen=True, slots=True)
class AutosubscribeResult:
    """The result of a pass, with the outcomes ordered by catalog key."""

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
        """The result as JSON values."""
        return asdict(self) | {"summary": self.summary}


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
    """Register the subscriber if needed, subscribe to what waits for it, tell Octogen to look.

    A catalog that fails does not stop the others. A second pass changes nothing more. Without
    `apply` it only says what it would do. `report` is called after each catalog.
    """
    checked_project(project)
    found = read_offers(
        octogen,
        octogen.listings(catalogs),
        project=project,
        principal=principal,
        catalogs=catalogs,
        register=apply,
    )
    subscriber = found.subscriber
    result = AutosubscribeResult(
        applied=apply,
        subscriber_project_id=project,
        subscriber_principal=principal,
        subscriber_id=subscriber.subscriber_id if subscriber else None,
        registered_subscriber=apply and not found.was_registered,
        would_register_subscriber=not (apply or found.was_registered),
    )
    unserved = None if subscriber is None or is_enabled(subscriber) else subscriber.desired_state
    silence: OctogenBigQueryUnreachableError | None = None
    for offer in found.offers:
        action, message = decide(offer, subscriber)
        outcome = CatalogOutcome(
            catalog_key=offer.catalog_key,
            action=action,
            status=unserved or offer.status,
            reason_code=None if unserved else offer.reason_code,
            listing_resource=offer.listing_resource,
            linked_dataset=offer.dataset_id or _default_dataset(offer.listing_resource),
            sample_query=offer.sample_query,
            message=message,
        )
        if action is Action.WOULD_SUBSCRIBE:
            try:
                plan = plan_subscription(
                    offer.listing_resource or "",
                    project,
                    offer.dataset_id,
                    offer.location,
                    friendly_name,
                )
                if apply:
                    if silence:  # each further call would wait as long
                        raise silence
                    linked = subscribe(hub, plan)
                    outcome = _confirmed(octogen, offer, principal, linked, outcome)
            except OctogenBigQueryAccessPendingError as error:
                outcome = replace(outcome, action=Action.PENDING, message=str(error))
            except OctogenError as error:
                outcome = replace(outcome, action=Action.ERROR, message=str(error))
                if isinstance(error, OctogenBigQueryUnreachableError):
                    silence = error.with_traceback(None)
        result.catalogs.append(outcome)
        report(outcome)
    return result


def _confirmed(
    octogen: OctogenMCP,
    offer: Offer,
    principal: str,
    linked: BigQuerySubscriptionResult,
    outcome: CatalogOutcome,
) -> CatalogOutcome:
    """Tell Octogen of a subscription, and return what became of the catalog."""
    cell, problem = confirm(octogen, offer, principal)
    done = Action.ALREADY_SUBSCRIBED if linked.already_subscribed else Action.SUBSCRIBED
    return replace(
        outcome,
        action=Action.ERROR if problem else done,
        status=(cell.status if cell else None) or outcome.status,
        reason_code=(cell.reason_code if cell else None) or outcome.reason_code,
        linked_dataset=linked.linked_dataset,
        sample_query=linked.sample_query,
        refresh_status=cell.status if cell else None,
        message=problem,
    )


def subscribe_with_octogen(
    octogen: OctogenMCP,
    hub: AnalyticsHub,
    listing: ListingName,
    *,
    project: str,
    principal: str,
    dataset_id: str | None = None,
    replacing: Callable[[str, str], None] | None = None,
    datasets: Mapping[str, str] = MappingProxyType({}),
    log: Callable[[str], object] = lambda _: None,
) -> tuple[SubscriptionPlan, BigQuerySubscriptionResult]:
    """Subscribe to one listing if Octogen has granted access, and tell Octogen of it.

    `log` is called with what is no failure.
    """
    shared = octogen.listings()
    if not any(is_named(listing, each.listing_resource) for each in shared):
        raise OctogenBigQueryError(
            f"Listing {listing}: Octogen does not share it with your organisation now. Its "
            "dataset, if there is one, is untouched; ask Octogen, or delete the partition."
        )
    found = read_offers(octogen, shared, project=project, principal=principal, register=True)
    offer = next(each for each in found.offers if is_named(listing, each.listing_resource))
    plan = plan_subscription(str(listing), project, dataset_id or offer.dataset_id, offer.location)
    action, message = decide(offer, found.subscriber)
    if action is Action.ALREADY_ACTIVE:
        return plan, subscribe(hub, plan, replacing=replacing, datasets=datasets)
    if action is Action.PENDING and found.subscriber and is_enabled(found.subscriber):
        existing = find_subscription(hub, plan, datasets)
        if existing is None:
            raise OctogenBigQueryAccessPendingError(f"Listing {listing}: {message}")
        log(f"Listing {listing}: {message} The project is subscribed nevertheless.")
        return plan, existing
    if action is not Action.WOULD_SUBSCRIBE:
        raise OctogenBigQueryError(f"Listing {listing}: {message}")
    result = subscribe(hub, plan, replacing=replacing, datasets=datasets)
    _, problem = confirm(octogen, offer, principal)
    if problem:
        log(f"Listing {listing}: {problem}")
    return plan, result


def _default_dataset(listing_resource: str | None) -> str | None:
    try:
        return ListingName.parse(listing_resource or "").default_dataset_id
    except OctogenBigQueryInputError:
        return None
