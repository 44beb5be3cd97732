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
        OctogenBigQueryError: The dataset is not known to be left over from a revoked subscription
            to this listing, or must not be deleted.
    """
    holders = [each for each in subscriptions if each.dataset_id == plan.dataset_id]
    without_dataset = [each for each in subscriptions if each.dataset_id is None]
    suspects = holders or without_dataset
    if may_delete and holders and all(each.state == REVOKED for each in holders):
        return holders
    raise OctogenBigQueryError(
        f"Listing {plan.listing}: project {plan.project} already has a dataset {plan.dataset_id}, "
        f"and {_problem(suspects)}"
    )


def _problem(suspects: Sequence[Subscription]) -> str:
    """Say why the dataset is kept, given the subscriptions that it may belong to."""
    if not suspects:
        return "it is not linked to this listing: choose another dataset id."
    for each in suspects:
        if each.state != REVOKED:
            return (
                f"subscription {each.name} to this listing is in state {each.state}, which this "
                "version does not know: look at it in the Google console; nothing was changed."
            )
    if suspects[0].dataset_id is None:
        return (
            f"a revoked subscription {suspects[0].name} to this listing is there, which does not "
            "say its dataset: if it is this one, delete that subscription, then subscribe again; "
            "if not, choose another dataset id."
        )
    return (
        f"it is left over from subscription {suspects[0].name} to this listing, which was revoked: "
        "delete it, then subscribe again."
    )
