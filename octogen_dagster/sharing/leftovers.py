"""Decides which revoked subscriptions hold the dataset id that a plan needs. No I/O."""

from __future__ import annotations

from typing import TYPE_CHECKING

from octogen_dagster.errors import OctogenBigQueryError
from octogen_dagster.sharing.subscription import REVOKED, Subscription

if TYPE_CHECKING:
    from collections.abc import Sequence

    from octogen_dagster.sharing.subscription_plan import SubscriptionPlan


def revoked_leftovers(
    plan: SubscriptionPlan, subscriptions: Sequence[Subscription]
) -> list[Subscription]:
    """The revoked subscriptions to the listing that hold the plan's dataset id.

    Args:
        plan: The plan, whose dataset id is taken.
        subscriptions: The project's subscriptions to the plan's listing.

    Raises:
        OctogenBigQueryError: The state of a subscription that holds it is not known.
    """
    holders = [each for each in subscriptions if each.dataset_id == plan.dataset_id]
    if problem := _state_problem(holders):
        raise OctogenBigQueryError(f"{taken(plan)}, and {problem}")
    return holders


def kept_leftover(plan: SubscriptionPlan, leftover: Subscription) -> OctogenBigQueryError:
    """The error of a plan whose dataset id a revoked subscription holds that may not be deleted."""
    return OctogenBigQueryError(
        f"{taken(plan)}, and it is left over from subscription {leftover.name} to this listing, "
        "which was revoked. Nothing was changed. With replace_revoked=True of "
        "build_linked_datasets_asset (replace_revoked: true in YAML), a run deletes that "
        "subscription with the dataset and the access rights set on it, and subscribes again. Or "
        "delete it yourself."
    )


def suspect_problem(subscriptions: Sequence[Subscription]) -> str | None:
    """Say which subscription to the listing may have the dataset, if one does not name its own.

    Args:
        subscriptions: The project's subscriptions to the listing.
    """
    suspects = [each for each in subscriptions if each.dataset_id is None]
    if not suspects:
        return None
    return _state_problem(suspects) or (
        f"a revoked subscription {suspects[0].name} to this listing is there, which does not say "
        "its dataset: if it is this one, delete that subscription, then subscribe again; if not, "
        "choose another dataset id."
    )


def _state_problem(subscriptions: Sequence[Subscription]) -> str | None:
    """Say which subscription is in a state that this version does not know, if one is.

    Args:
        subscriptions: Subscriptions that are not in force.
    """
    for each in subscriptions:
        if each.state != REVOKED:
            return (
                f"subscription {each.name} to this listing is in state {each.state}, which this "
                "version does not know: look at it in the Google console; nothing was changed."
            )
    return None


def taken(plan: SubscriptionPlan) -> str:
    """The beginning of a message about a plan whose dataset id is taken.

    Args:
        plan: The plan.
    """
    return f"Listing {plan.listing}: project {plan.project} already has a dataset {plan.dataset_id}"
