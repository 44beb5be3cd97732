"""Plans of subscriptions, and the names that they refuse."""

from __future__ import annotations

import pytest

from octogen_dagster.errors import OctogenBigQueryInputError
from octogen_dagster.sharing.subscription_plan import plan_subscription

LISTING = "projects/p/locations/eu/dataExchanges/e/listings/a-b"


def test_a_plan_takes_what_was_left_out_from_the_listing() -> None:
    plan = plan_subscription(LISTING, "mine")
    assert (plan.dataset_id, plan.location, plan.friendly_name) == (
        "octogen_a_b",
        "eu",
        "Octogen octogen_a_b",
    )
    named = plan_subscription(str(plan.listing), "mine", "data", "EU", "Mine")
    assert (named.dataset_id, named.location, named.friendly_name) == ("data", "EU", "Mine")


@pytest.mark.parametrize(
    ("listing", "project", "dataset"),
    [("acme", "mine", None), (LISTING, "my project", None), (LISTING, "mine", "my-data")],
)
def test_an_invalid_name_is_refused(listing: str, project: str, dataset: str | None) -> None:
    with pytest.raises(OctogenBigQueryInputError):
        plan_subscription(listing, project, dataset)
