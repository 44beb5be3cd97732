"""autosubscribe: one idempotent pass that subscribes a project to what Octogen shares with it.

It only orchestrates: what Octogen says comes from a `ControlPlane`, and `subscribe` does the
subscribing.
"""

from __future__ import annotations

import sys
from collections import Counter, defaultdict
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from octogen_dagster.control_plane.tools import Cell, SharedListing
from octogen_dagster.errors import (
    OctogenBigQueryAccessPendingError,
    OctogenBigQueryInputError,
    OctogenError,
)
from octogen_dagster.sharing.resource_names import ListingName, checked_project
from octogen_dagster.sharing.subscribe import planned

if sys.version_info >= (3, 11):
    from enum import StrEnum
else:
    from backports.strenum import StrEnum

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from octogen_dagster.control_plane.tools import ControlPlane, Subscriber
    from octogen_dagster.sharing.subscribe import BigQuerySubscriptionResult, SubscriptionPlan

_SUBSCRIBED = {"active", "source_stale"}
_FAILED = {"refresh_failed", "access_grant_failed"}
_WITHDRAWN = {"catalog_not_enabled", "scope_revoked", "removing"}


class Action(StrEnum):
    """What a pass did about a catalog."""

    ALREADY_ACTIVE = "already_active"
    ALREADY_SUBSCRIBED = "already_subscribed"
    SUBSCRIBED = "subscribed"
    WOULD_SUBSCRIBE = "would_subscribe"
    PENDING = "pending"
    SKIPPED = "skipped"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class CatalogOutcome:
    """A catalog after a pass.

    Attributes:
        catalog_key: The catalog; None when Octogen did not say which one it is.
        action: What was done about it.
        status: Octogen's status of it: the latest known.
        reason_code: Octogen's reason for the status.
        listing_resource: Its listing.
        linked_dataset: The id of its linked dataset, or the one it would get.
        sample_query: A first query to it.
        refresh_status: What Octogen said when it was told to look again.
        message: What there is to say about it.
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
    """What a pass did.

    Attributes:
        applied: False for a dry run.
        subscriber_project_id: The project of the linked datasets.
        subscriber_principal: The principal that subscribes.
        subscriber_id: Octogen's id of the two; None while they are not registered.
        registered_subscriber: Whether this pass registered them.
        would_register_subscriber: Whether a pass that is no dry run would.
        catalogs: The catalogs, in order of their keys.
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
        """How many catalogs ended in each action."""
        return dict(Counter(str(catalog.action) for catalog in self.catalogs))

    def as_dict(self) -> dict[str, Any]:
        """All of it as JSON has it."""
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

    A catalog that fails does not stop the others. Running it again changes nothing more.

    Args:
        control_plane: What Octogen shares.
        subscribe: Carries out the plan for a listing.
        project: Your Google Cloud project, which linked datasets are created in.
        principal: The IAM principal that subscribes, as `serviceAccount:…`.
        catalogs: The catalogs to look at; none means all.
        friendly_name: The display name of the linked datasets.
        apply: Change something; otherwise only say what would be done.
        report: Called after each catalog.

    Raises:
        OctogenBigQueryInputError: The project cannot be one.
        OctogenMCPError: Octogen does not say what it shares, or refuses the subscriber.
        OctogenConnectionError: Octogen does not answer.
    """
    checked_project(project)
    listings = control_plane.listings(catalogs)
    subscribers, cells = control_plane.subscribers()
    subscriber = next(
        (each for each in subscribers if (each.project, each.principal) == (project, principal)),
        None,
    )
    missing = subscriber is None
    if missing and apply:
        subscriber, cells = control_plane.register(project, principal)
    subscriber_id = subscriber.subscriber_id if subscriber else None
    result = AutosubscribeResult(
        applied=apply,
        subscriber_project_id=project,
        subscriber_principal=principal,
        subscriber_id=subscriber_id,
        registered_subscriber=missing and apply,
        would_register_subscriber=missing and not apply,
    )
    one_pass = _Pass(control_plane, subscribe, project, principal, friendly_name, apply)
    mine = [cell for cell in cells if cell.subscriber_id == subscriber_id] if subscriber else []
    for listing, cell in _matched(listings, mine, catalogs):
        outcome = one_pass.outcome(listing, cell, subscriber)
        result.catalogs.append(outcome)
        if report:
            report(outcome)
    return result


def _matched(
    listings: list[SharedListing], cells: list[Cell], catalogs: Sequence[str]
) -> list[tuple[SharedListing, Cell | None]]:
    """Each listing with its cell, if it has one; nothing that was sent is left out.

    A cell that names none of the listings is of one of its catalog's that no other cell names.
    """
    by_resource = {each.listing_resource: each for each in listings if each.listing_resource}
    by_catalog: defaultdict[str, list[SharedListing]] = defaultdict(list)
    for each in listings:
        if each.catalog_key:
            by_catalog[each.catalog_key].append(each)
    named = [by_resource.get(cell.listing.listing_resource or "") for cell in cells]
    taken = {listing for listing in named if listing}
    matched: list[tuple[SharedListing, Cell | None]] = []
    for cell, listing in zip(cells, named, strict=True):
        known = listing
        if known is None and (namesakes := by_catalog.get(cell.listing.catalog_key or "")):
            known = next((each for each in namesakes if each not in taken), namesakes[0])
            taken.add(known)
        matched.append((_merged(cell.listing, known), cell))
    matched += [(each, None) for each in listings if each not in taken]
    if catalogs:
        seen = {listing.catalog_key for listing, _ in matched}
        matched = [pair for pair in matched if pair[0].catalog_key in catalogs]
        matched += [(SharedListing(key), None) for key in set(catalogs) - seen]
    return sorted(matched, key=lambda pair: (pair[0].catalog_key or "", str(pair[1])))


def _merged(first: SharedListing, second: SharedListing | None) -> SharedListing:
    """What the first says, and where it says nothing, what the second does."""
    if second is None:
        return first
    return SharedListing(
        **{name: value or getattr(second, name) for name, value in asdict(first).items()}
    )


@dataclass(frozen=True)
class _Pass:
    """What is the same for all catalogs of a pass."""

    control_plane: ControlPlane
    subscribe: Callable[[SubscriptionPlan], BigQuerySubscriptionResult]
    project: str
    principal: str
    friendly_name: str | None
    apply: bool

    def outcome(
        self, listing: SharedListing, cell: Cell | None, subscriber: Subscriber | None
    ) -> CatalogOutcome:
        """Do what there is to do about a catalog."""
        action, message = _verdict(listing, cell, subscriber)
        start = CatalogOutcome(
            catalog_key=listing.catalog_key,
            action=action,
            status=_status(cell, subscriber),
            reason_code=cell.reason_code if cell else None,
            listing_resource=listing.listing_resource,
            linked_dataset=listing.linked_dataset or _default_dataset(listing.listing_resource),
            sample_query=listing.sample_query,
            message=message,
        )
        return self._subscribed(start, listing) if action is Action.WOULD_SUBSCRIBE else start

    def _subscribed(self, start: CatalogOutcome, listing: SharedListing) -> CatalogOutcome:
        if listing.listing_resource is None or listing.catalog_key is None:
            return _failed(
                start, "Octogen grants access and names no listing: report it to Octogen."
            )
        try:
            plan = planned(
                listing.listing_resource,
                self.project,
                listing.linked_dataset,
                listing.location,
                self.friendly_name,
            )
            if not self.apply:
                return start
            subscribed = self.subscribe(plan)
        except OctogenBigQueryAccessPendingError as error:
            return replace(start, action=Action.PENDING, message=str(error))
        except OctogenError as error:
            return _failed(start, str(error))
        there = subscribed.already_subscribed
        done = replace(
            start,
            action=Action.ALREADY_SUBSCRIBED if there else Action.SUBSCRIBED,
            linked_dataset=subscribed.linked_dataset,
            sample_query=subscribed.sample_query,
            message=None,
        )
        try:
            cell = self.control_plane.refresh_status(listing.catalog_key, self.principal)
        except OctogenError as error:
            return _failed(done, f"It is subscribed, but Octogen did not look again: {error}")
        return replace(
            done,
            status=cell.status or start.status,
            reason_code=cell.reason_code,
            refresh_status=cell.status,
        )


def _verdict(
    listing: SharedListing, cell: Cell | None, subscriber: Subscriber | None
) -> tuple[Action, str | None]:
    """What is to be done about a catalog, and why."""
    status, reason = _status(cell, subscriber), cell.reason_code if cell else None
    if listing.catalog_key is None:
        verdict = Action.SKIPPED, "Octogen sent it without a catalog key: report it to Octogen."
    elif cell is None and listing.listing_resource is None:
        verdict = Action.SKIPPED, "Octogen shares no catalog of this key: check the key."
    elif subscriber is None:
        verdict = (
            Action.PENDING,
            "The subscriber is not registered: a pass with --apply registers it, and a later one "
            "subscribes, once Octogen has granted access.",
        )
    elif not _enabled(subscriber):
        verdict = Action.PENDING, f"The subscriber is {status} at Octogen: enable it there."
    elif cell is None:
        verdict = Action.PENDING, "Octogen has no status for this subscriber yet."
    elif status == "awaiting_subscription":
        verdict = Action.WOULD_SUBSCRIBE, "A pass with --apply creates the linked dataset."
    elif status in _SUBSCRIBED:
        return Action.ALREADY_ACTIVE, None
    elif status in _FAILED or reason == "needs_attention":
        verdict = Action.ERROR, f"Octogen reports {reason or status}: ask Octogen."
    elif reason in _WITHDRAWN:
        verdict = Action.SKIPPED, f"Octogen does not share it ({reason})."
    elif status == "pending":
        verdict = Action.PENDING, "Octogen has not granted access yet."
    elif status is None:
        verdict = Action.SKIPPED, "Octogen sent no status: report it to Octogen."
    else:
        verdict = Action.SKIPPED, f"The status {status!r} is not known: update octogen-dagster."
    return verdict


def _status(cell: Cell | None, subscriber: Subscriber | None) -> str | None:
    if subscriber and not _enabled(subscriber):
        return subscriber.desired_state
    return cell.status if cell else None


def _enabled(subscriber: Subscriber) -> bool:
    return subscriber.desired_state in (None, "enabled")


def _failed(start: CatalogOutcome, message: str) -> CatalogOutcome:
    return replace(start, action=Action.ERROR, message=message)


def _default_dataset(listing_resource: str | None) -> str | None:
    try:
        return ListingName.parse(listing_resource or "").default_dataset_id
    except OctogenBigQueryInputError:
        return None
