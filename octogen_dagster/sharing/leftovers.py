"""Decides which revoked subscriptions hold the dataset id that a plan needs. No I/O."""

from __future__ import annotations

from typing import TYPE_CHECKING

from octogen_dagster.errors import OctogenBigQueryError
from octogen_dagster.sharing.subscription import REVOKED, Subscription

if TYPE_CHECKING:
    from collections.abc import Sequence

    from octogen_dagster.sharing.subscription_plan import SubscriptionPlan


def removable_leftovers(
    plan: SubscriptionPlan, subscriptions: Sequence[Subscription], *, may_delete: bool
) -> list[Subscription]:
    """The revoked subscriptions to the listing that hold the plan's dataset id.

    Args:
        plan: The plan, whose dataset id is taken.
        subscriptions: The project's subscriptions to the plan's listing.
        may_delete: False makes any leftover an error.

    Raises:
        OctogenBigQueryError: The dataset id is held by a subscription that must not be deleted, or
            whose state is not known.
    """
    holders = [each for each in subscriptions if each.dataset_id == plan.dataset_id]
    problem = _state_problem(holders)
    if holders and not (problem or may_delete):
        problem = (
            f"it is left over from subscription {holders[0].name} to this listing, which was "
            "revoked: delete it, then subscribe again."
        )
    if problem:
        raise OctogenBigQueryError(f"{taken(plan)}, and {problem}")
    return holders


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
