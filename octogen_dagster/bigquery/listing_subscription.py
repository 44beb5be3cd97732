"""The steps that subscribe a project to one listing. Knows no Dagster."""

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from octogen_dagster.errors import (
    OctogenBigQueryAccessPendingError,
    OctogenBigQueryError,
    OctogenBigQueryInputError,
)
from octogen_dagster.sharing.confirmation import confirm
from octogen_dagster.sharing.octogen_protocols import ControlPlane, SharedListing
from octogen_dagster.sharing.resource_names import ListingName
from octogen_dagster.sharing.subscribe import BigQuerySubscriptionResult, Subscriptions
from octogen_dagster.sharing.subscriber_view import (
    SubscriberListing,
    SubscriberView,
    read_subscriber_view,
)
from octogen_dagster.sharing.subscription_plan import SubscriptionPlan, plan_subscription
from octogen_dagster.sharing.verdict import Action, is_enabled, shown_status, verdict


@dataclass
class ListingSubscription:
    """The subscription of a project to one listing.

    Attributes:
        subscriptions: The project's subscriptions.
        plan: The plan; it changes when Octogen suggests a dataset id or a location.
        replacing: As for `Subscriptions.subscribe`.
        log: Called with messages that are no failure.
    """

    subscriptions: Subscriptions
    plan: SubscriptionPlan
    replacing: Callable[[str, str], None] | None
    log: Callable[[str], None]

    def subscribe(self) -> BigQuerySubscriptionResult:
        """Carry out the plan.

        Raises:
            OctogenBigQueryAccessPendingError: The grant has not arrived yet.
            OctogenBigQueryError: Analytics Hub failed.
        """
        return self.subscriptions.subscribe(self.plan, replacing=self.replacing)

    def subscribe_with_octogen(
        self, control_plane: ControlPlane, principal: str, dataset_id: str | None
    ) -> BigQuerySubscriptionResult:
        """Subscribe if Octogen has granted access, and tell Octogen of it.

        Args:
            control_plane: Octogen.
            principal: The IAM principal that subscribes.
            dataset_id: The id of the linked dataset; None takes the one that Octogen suggests.

        Raises:
            OctogenBigQueryAccessPendingError: Octogen has not granted access yet.
            OctogenBigQueryError: Octogen does not share the listing, has disabled the subscriber,
                or reports an error; or Analytics Hub failed.
            OctogenError: Octogen failed.
        """
        view, listing = self._read_view(control_plane, principal, dataset_id)
        decided = verdict(listing, view.subscriber)
        status = shown_status(listing, view.subscriber)
        message = f"Listing {self.plan.listing}: {decided.message or status}"
        if decided.action is Action.ALREADY_ACTIVE:
            return self.subscribe()
        if decided.action is Action.PENDING and view.subscriber and is_enabled(view.subscriber):
            return self._find_existing(message)
        if decided.action is not Action.WOULD_SUBSCRIBE:
            raise OctogenBigQueryError(message)
        self._check_offered(listing)
        self._suggest(dataset_id, listing)
        result = self.subscribe()
        confirmation = confirm(control_plane, listing, principal)
        if confirmation.problem:
            self.log(f"Listing {self.plan.listing}: {confirmation.problem}")
        return result

    def _read_view(
        self, control_plane: ControlPlane, principal: str, dataset_id: str | None
    ) -> tuple[SubscriberView, SubscriberListing]:
        """Read what Octogen shows the subscriber, and find the listing in it."""
        shared = control_plane.listings()
        own = _find_shared(shared, self.plan.listing)
        self._suggest(dataset_id, own)
        view = read_subscriber_view(
            control_plane,
            shared,
            project=self.plan.project,
            principal=principal,
            catalogs=[own.catalog_key or ""],
            register=True,
        )
        for each in view.listings:  # a catalog may have several
            if _is_named(self.plan.listing, each.listing_resource):
                return view, each
        return view, view.listings[0]

    def _suggest(self, dataset_id: str | None, shared: SharedListing | SubscriberListing) -> None:
        self.plan = plan_subscription(
            str(self.plan.listing),
            self.plan.project,
            dataset_id,
            shared.location,
            suggested_dataset_id=shared.linked_dataset,
        )

    def _find_existing(self, message: str) -> BigQuerySubscriptionResult:
        """Return the subscription that is in force although Octogen's status is pending."""
        existing = self.subscriptions.find_existing(self.plan)
        if existing is None:
            raise OctogenBigQueryAccessPendingError(message)
        self.log(f"{message} The project is subscribed nevertheless.")
        return existing

    def _check_offered(self, offered: SubscriberListing) -> None:
        if not _is_named(self.plan.listing, offered.listing_resource):
            raise OctogenBigQueryError(
                f"Listing {self.plan.listing}: Octogen offers listing {offered.listing_resource} "
                "of the same catalog to this subscriber, and not this one: ask Octogen."
            )


def _find_shared(shared: Sequence[SharedListing], listing: ListingName) -> SharedListing:
    for each in shared:
        if each.catalog_key and _is_named(listing, each.listing_resource):
            return each
    raise OctogenBigQueryError(
        f"Listing {listing}: Octogen does not share it with your organisation now. Its dataset, if "
        "there is one, is untouched; ask Octogen, or delete the partition."
    )


def _is_named(listing: ListingName, resource: str | None) -> bool:
    """True if a resource name may be the listing's, whose project has an id and a number."""
    with contextlib.suppress(OctogenBigQueryInputError):
        return listing.matches(ListingName.parse(resource or "")) is not False
    return False
