"""Decides whose a dataset is whose id a plan needs. No I/O."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from octogen_dagster.sharing.datasets import Dataset


class Holder(Enum):
    """Whose a dataset is."""

    NOBODY = "there is no such dataset"
    THIS_LISTING = "linked to this listing"
    OTHER_LISTING = "linked to another listing"
    OTHERS = "no linked dataset"
    UNKNOWN = "linked, and it is not known to what"


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
