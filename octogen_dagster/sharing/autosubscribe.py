"""autosubscribe: one idempotent pass that subscribes a project to what Octogen shares with it.

A pass reads the subscriber's view, decides about each listing, subscribes, and tells Octogen to
look again. Each step has a module of its own.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from octogen_dagster.errors import (
    OctogenBigQueryAccessPendingError,
    OctogenBigQueryInputError,
    OctogenError,
)
from octogen_dagster.sharing.confirmation import confirm
from octogen_dagster.sharing.resource_names import ListingName, checked_project
from octogen_dagster.sharing.subscriber_view import read_subscriber_view
from octogen_dagster.sharing.subscription_plan import plan_subscription
from octogen_dagster.sharing.verdict import Action, shown_status, verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from octogen_dagster.sharing.octogen_protocols import ControlPlane, Subscriber
    from octogen_dagster.sharing.subscribe import BigQuerySubscriptionResult
    from octogen_dagster.sharing.subscriber_view import SubscriberListing
    from octogen_dagster.sharing.subscription_plan import SubscriptionPlan


@dataclass(frozen=True, slots=True)
class CatalogOutcome:
    """The outcome of a pass for one catalog.

    Attributes:
        catalog_key: The key of the catalog; None if Octogen did not send it.
        action: The action that was taken.
        status: The latest status that Octogen sent.
        reason_code: Octogen's reason for the status.
        listing_resource: The resource name of its listing.
        linked_dataset: The id of its linked dataset, or the one it would get.
        sample_query: A first query to the linked dataset.
        refresh_status: The status that Octogen sent when it was told to look again.
        message: An explanation of the action; None if there is nothing to explain.
    """

    catalog_key: str | None
    action: Action
    status: str | None = None
    reason_code: str | None = None
    listing_resource: str | None = None
    linked_dataset: str | None = None
    sample_query: str | None = None
    refresh_status: str | None = None
    message: str | None = None


@dataclass(frozen=True, slots=True)
class AutosubscribeResult:
    """The result of a pass.

    Attributes:
        applied: False for a dry run.
        subscriber_project_id: The project of the linked datasets.
        subscriber_principal: The principal that subscribes.
        subscriber_id: Octogen's id of the subscriber; None if it is not registered.
        registered_subscriber: True if this pass registered the subscriber.
        would_register_subscriber: True if a pass that is no dry run would register it.
        catalogs: The outcome for each catalog, ordered by key.
    """

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
    control_plane: ControlPlane,
    subscribe: Callable[[SubscriptionPlan], BigQuerySubscriptionResult],
    *,
    project: str,
    principal: str,
    catalogs: Sequence[str] = (),
    friendly_name: str | None = None,
    apply: bool = False,
    report: Callable[[CatalogOutcome], None] | None = None,
) -> AutosubscribeResult:
    """Register the subscriber if needed, subscribe to what waits for it, tell Octogen to look.

    A catalog that fails does not stop the others. A second pass changes nothing more.

    Args:
        control_plane: Octogen.
        subscribe: Carries out the plan for a listing.
        project: Your Google Cloud project, which linked datasets are created in.
        principal: The IAM principal that subscribes, as `serviceAccount:…`.
        catalogs: The keys of the catalogs to look at; none means all.
        friendly_name: The display name of the linked datasets.
        apply: Make changes; otherwise only report what would be done.
        report: Called after each catalog.

    Raises:
        OctogenBigQueryInputError: The project name is invalid.
        OctogenMCPError: Octogen sends no result, or refuses the subscriber.
        OctogenConnectionError: Octogen does not respond.
    """
    checked_project(project)
    view = read_subscriber_view(
        control_plane,
        control_plane.listings(catalogs),
        project=project,
        principal=principal,
        catalogs=catalogs,
        register=apply,
    )
    result = AutosubscribeResult(
        applied=apply,
        subscriber_project_id=project,
        subscriber_principal=principal,
        subscriber_id=view.subscriber.subscriber_id if view.subscriber else None,
        registered_subscriber=apply and not view.was_registered,
        would_register_subscriber=not (apply or view.was_registered),
    )
    one_pass = _Pass(control_plane, subscribe, project, principal, friendly_name, apply)
    for listing in view.listings:
        outcome = one_pass.process(listing, view.subscriber)
        result.catalogs.append(outcome)
        if report:
            report(outcome)
    return result


@dataclass(frozen=True)
class _Pass:
    """The settings that all catalogs of a pass share."""

    control_plane: ControlPlane
    subscribe: Callable[[SubscriptionPlan], BigQuerySubscriptionResult]
    project: str
    principal: str
    friendly_name: str | None
    apply: bool

    def process(self, listing: SubscriberListing, subscriber: Subscriber | None) -> CatalogOutcome:
        """Decide about a listing and carry out the decision."""
        decided = verdict(listing, subscriber)
        status = shown_status(listing, subscriber)
        outcome = CatalogOutcome(
            catalog_key=listing.catalog_key,
            action=decided.action,
            status=status,
            reason_code=listing.reason_code if status == listing.status else None,
            listing_resource=listing.listing_resource,
            linked_dataset=listing.linked_dataset or _default_dataset(listing.listing_resource),
            sample_query=listing.sample_query,
            message=decided.message,
        )
        if decided.action is not Action.WOULD_SUBSCRIBE:
            return outcome
        try:
            return self._subscribe(listing, outcome)
        except OctogenBigQueryAccessPendingError as error:
            return replace(outcome, action=Action.PENDING, message=str(error))
        except OctogenError as error:
            return replace(outcome, action=Action.ERROR, message=str(error))

    def _subscribe(self, listing: SubscriberListing, outcome: CatalogOutcome) -> CatalogOutcome:
        plan = plan_subscription(
            listing.listing_resource or "",
            self.project,
            location=listing.location,
            friendly_name=self.friendly_name,
            suggested_dataset_id=listing.linked_dataset,
        )
        if not self.apply:
            return outcome
        subscription = self.subscribe(plan)
        confirmation = confirm(self.control_plane, listing, self.principal)
        outcome = replace(
            outcome,
            linked_dataset=subscription.linked_dataset,
            sample_query=subscription.sample_query,
        )
        if confirmation.problem:
            return replace(outcome, action=Action.ERROR, message=confirmation.problem)
        return replace(
            outcome,
            action=Action.ALREADY_SUBSCRIBED
            if subscription.already_subscribed
            else Action.SUBSCRIBED,
            status=confirmation.status or outcome.status,
            reason_code=confirmation.reason_code or outcome.reason_code,
            refresh_status=confirmation.status,
            message=None,
        )


def _default_dataset(listing_resource: str | None) -> str | None:
    try:
        return ListingName.parse(listing_resource or "").default_dataset_id
    except OctogenBigQueryInputError:
        return None
