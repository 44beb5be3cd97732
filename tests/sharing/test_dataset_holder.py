"""Whose a dataset is, by what it is linked to and what the listing shares."""

from __future__ import annotations

import pytest

from octogen_dagster.errors import OctogenBigQueryUnavailableError, Persistence
from octogen_dagster.sharing.dataset_holder import HeldDataset, Holder, dataset_holder
from octogen_dagster.sharing.datasets import Dataset
from octogen_dagster.sharing.subscription_plan import plan_subscription

SHARED = "projects/123/datasets/shared"


def linked(source: str | None, *, in_force: bool = True) -> Dataset:
    return Dataset("US", is_linked=True, is_in_force=in_force, source=source)


@pytest.mark.parametrize(
    ("dataset", "shared", "holder"),
    [
        (None, SHARED, Holder.NOBODY),
        (Dataset("US", False, False, None), SHARED, Holder.OTHERS),
        (linked(SHARED), SHARED, Holder.THIS_LISTING),
        (linked(SHARED, in_force=False), SHARED, Holder.UNKNOWN),
        (linked("projects/124/datasets/shared"), SHARED, Holder.OTHER_LISTING),
        (linked("projects/123/datasets/other"), SHARED, Holder.OTHER_LISTING),
        (linked("projects/octo/datasets/other"), SHARED, Holder.OTHER_LISTING),
        (linked("projects/octo/datasets/shared"), SHARED, Holder.UNKNOWN),
        (linked(None), SHARED, Holder.UNKNOWN),
        (linked(SHARED), None, Holder.UNKNOWN),
        (linked(SHARED), "shared", Holder.UNKNOWN),
    ],
)
def test_the_holder_of_a_dataset(
    dataset: Dataset | None, shared: str | None, holder: Holder
) -> None:
    assert dataset_holder(dataset, shared) is holder


def test_a_dataset_that_cannot_be_read_for_a_moment_passes() -> None:
    plan = plan_subscription(
        "projects/octo/locations/us/dataExchanges/catalogs/listings/acme", "mine"
    )
    busy = OctogenBigQueryUnavailableError("Dataset mine.octogen_acme: Busy. Try again later.")
    error = HeldDataset(Holder.UNKNOWN, unreadable=busy).error(plan)
    assert error.persistence is Persistence.PASSING
    assert str(error) == (
        f"Listing {plan.listing}: project mine already has a dataset octogen_acme, and no "
        "subscription to this listing has it. What the dataset is linked to cannot be read "
        "(Dataset mine.octogen_acme: Busy. Try again later): try again later, or choose another "
        "dataset id with dataset_id= (--dataset on a command line)."
    )
