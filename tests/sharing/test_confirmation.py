from __future__ import annotations

from dataclasses import replace

from octogen_dagster.sharing.confirmation import Confirmation, confirm
from octogen_dagster.sharing.subscriber_view import SubscriberListing
from tests.sharing.octogen import PRINCIPAL, Octogen, cell, shared

ACME = SubscriberListing("acme")


def test_octogen_s_new_status_is_returned() -> None:
    octogen = shared("acme")
    assert confirm(octogen, ACME, PRINCIPAL) == Confirmation("active")
    assert octogen.calls == [f"refresh acme {PRINCIPAL}"]


def test_a_failure_is_returned_and_not_raised() -> None:
    octogen = Octogen(refresh_fails={"acme"})
    confirmation = confirm(octogen, ACME, PRINCIPAL)
    assert confirmation.problem == (
        "It is subscribed, but Octogen did not look again: Octogen did not answer."
    )


def test_the_schema_is_the_cell_s_own() -> None:
    octogen = Octogen()
    own = replace(cell("acme"), share_schema="raw_products", schema_version="v2")
    confirm(octogen, SubscriberListing.of_cell(own, None), PRINCIPAL)
    assert octogen.schemas == [("raw_products", "v2")]
