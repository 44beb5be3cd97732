"""Decides whose a dataset is whose id a plan needs. No I/O."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from octogen_dagster.errors import (
    OctogenBigQueryError,
    OctogenBigQueryUnavailableError,
    Persistence,
)
from octogen_dagster.sharing.leftovers import taken

if TYPE_CHECKING:
    from octogen_dagster.sharing.datasets import Dataset
    from octogen_dagster.sharing.subscription_plan import SubscriptionPlan

_CHOOSE = "choose another dataset id with dataset_id= (--dataset on a command line)."


class Holder(Enum):
    """Whose a dataset is."""

    NOBODY = "there is no such dataset"
    THIS_LISTING = "linked to this listing"
    OTHER_LISTING = "linked to another listing"
    OTHERS = "no linked dataset"
    UNKNOWN = "not known"


@dataclass(frozen=True, slots=True)
class HeldDataset:
    """A dataset whose id a plan needs, as far as it is known.

    Attributes:
        holder: Whose it is.
        linked_to: The name of the listing or of the dataset that it is linked to.
        is_in_force: False if it is linked and the link was ended.
        unreadable: Why it is not known what it is linked to; None if it is known.
    """

    holder: Holder
    linked_to: str | None = None
    is_in_force: bool = True
    unreadable: OctogenBigQueryError | None = None

    @property
    def obstacle(self) -> str | None:
        """Why it is not known what the dataset is linked to; None if it is known."""
        if self.unreadable is None:
            return None
        return f"What the dataset is linked to cannot be read ({str(self.unreadable).rstrip('.')})"

    def error(self, plan: SubscriptionPlan) -> OctogenBigQueryError:
        """The error of a plan that needs the dataset's id and does not get it.

        Args:
            plan: The plan.
        """
        if self.holder is Holder.NOBODY:
            return OctogenBigQueryUnavailableError(
                f"Listing {plan.listing}: Analytics Hub says that dataset {plan.project}."
                f"{plan.dataset_id} exists, and BigQuery has none: it is being created or deleted. "
                "Try again later."
            )
        if self.holder is Holder.OTHERS:
            return OctogenBigQueryError(f"{taken(plan)}, which is no linked dataset: {_CHOOSE}")
        if self.holder is Holder.OTHER_LISTING:
            return OctogenBigQueryError(
                f"{taken(plan)}, which is linked to {self.linked_to}: {_CHOOSE}"
            )
        if self.unreadable:
            lasts = self.unreadable.persistence is Persistence.PERMANENT
            kind = OctogenBigQueryError if lasts else OctogenBigQueryUnavailableError
            return kind(
                f"{taken(plan)}, and no subscription to this listing has it. {self.obstacle}: "
                f"{'allow that' if lasts else 'try again later'}, or {_CHOOSE}"
            )
        if not self.is_in_force:
            return OctogenBigQueryError(
                f"{taken(plan)}, whose link has ended: delete it if nobody needs it, or {_CHOOSE}"
            )
        return OctogenBigQueryUnavailableError(
            f"{taken(plan)}, which is linked to {self.linked_to or 'an unnamed dataset'}, and no "
            "subscription to this listing has it. Analytics Hub's list may lag behind, or the "
            "dataset outlives a subscription that was deleted: try again later, delete the "
            f"dataset if it stays, or {_CHOOSE}"
        )


def dataset_holder(dataset: Dataset | None, shared: str | None) -> Holder:
    """Tell whose a dataset is by what it is linked to.

    Args:
        dataset: The dataset; None if there is none.
        shared: The dataset that the listing shares, as `projects/<project>/datasets/<id>`; None if
            it is not known.
    """
    if dataset is None:
        return Holder.NOBODY
    if not dataset.is_linked:
        return Holder.OTHERS
    same = _is_same(dataset.source, shared)
    if same is False:
        return Holder.OTHER_LISTING
    return Holder.THIS_LISTING if same and dataset.is_in_force else Holder.UNKNOWN


def _is_same(one: str | None, other: str | None) -> bool | None:
    """True if two names are of one dataset; None if that is not known.

    The project may be named by its id or by its number.
    """
    parts = [(name or "").split("/") for name in (one, other)]
    if any(len(part) != 4 for part in parts):
        return None
    (_, one_project, _, one_dataset), (_, other_project, _, other_dataset) = parts
    if one_dataset != other_dataset:
        return False
    if one_project == other_project:
        return True
    return None if one_project.isdecimal() != other_project.isdecimal() else False
