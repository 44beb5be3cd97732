"""Octogen looks at a subscription again, or the confirmation says why not."""

from __future__ import annotations

from octogen_dagster.sharing.confirmation import Confirmation, confirm
from tests.sharing.octogen import PRINCIPAL, Octogen


def test_the_confirmation_has_the_new_status() -> None:
    octogen = Octogen()
    assert confirm(octogen, "acme", PRINCIPAL) == Confirmation(status="active")
    assert octogen.calls == [f"refresh acme {PRINCIPAL}"]


def test_a_failure_is_a_problem_and_not_an_error() -> None:
    assert confirm(Octogen(refresh_fails={"acme"}), "acme", PRINCIPAL) == Confirmation(
        problem="It is subscribed, but Octogen did not look again: Octogen did not answer."
    )
