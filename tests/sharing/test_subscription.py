"""Subscriptions read from messages of Analytics Hub."""

from __future__ import annotations

import pytest
from google.cloud import bigquery_analyticshub_v1 as ah

from octogen_dagster.sharing.subscription import Subscription, state_name

NAME = "projects/1/locations/us/subscriptions/s"


def message(
    project: str | None = None,
    dataset: str | None = None,
    linked: str | None = None,
    resource: ah.Subscription.LinkedResource | None = None,
) -> ah.Subscription:
    subscription = ah.Subscription(name=NAME, state=ah.Subscription.State.STATE_ACTIVE)
    if dataset:
        reference = ah.DestinationDatasetReference(project_id=project, dataset_id=dataset)
        subscription.destination_dataset = ah.DestinationDataset(dataset_reference=reference)
    if linked:
        subscription.linked_dataset_map = {
            "listing": ah.Subscription.LinkedResource(linked_dataset=linked)
        }
    if resource:
        subscription.linked_resources = [resource]
    return subscription


def of_dataset(name: str) -> ah.Subscription.LinkedResource:
    return ah.Subscription.LinkedResource(linked_dataset=name)


TOPIC = ah.Subscription.LinkedResource(linked_pubsub_subscription="projects/mine/subscriptions/s")


@pytest.mark.parametrize(
    ("subscription", "project", "dataset"),
    [
        (message("mine", "acme"), "mine", "acme"),
        (message(linked="projects/mine/datasets/acme"), "mine", "acme"),
        (message("123", "acme", "projects/mine/datasets/acme"), "mine", "acme"),
        (message("123", "acme"), None, "acme"),
        (message(linked="projects/mine"), None, None),
        (message(resource=of_dataset("projects/mine/datasets/acme")), "mine", "acme"),
        (
            message("123", "acme", resource=of_dataset("projects/mine/datasets/acme")),
            "mine",
            "acme",
        ),
        (message(resource=TOPIC), None, None),
        (message(), None, None),
    ],
    ids=[
        *("destination", "linked", "both", "number", "no dataset"),
        *("resources", "number and resources", "topic", "none"),
    ],
)
def test_the_linked_dataset_is_read_from_any_field(
    subscription: ah.Subscription, project: str | None, dataset: str | None
) -> None:
    found = Subscription.of(subscription, {})
    assert found == Subscription(NAME, "STATE_ACTIVE", project, dataset)


def test_a_known_dataset_is_used_only_if_the_message_has_none() -> None:
    known = {NAME: "known"}
    assert Subscription.of(message(), known).dataset_id == "known"
    assert Subscription.of(message("mine", "acme"), known).dataset_id == "acme"
    assert Subscription.of(message(), {f"{NAME}0": "other"}).dataset_id is None


@pytest.mark.parametrize(
    ("state", "in_force"),
    [("STATE_ACTIVE", True), ("STATE_STALE", True), ("STATE_INACTIVE", False), ("7", False)],
)
def test_active_and_stale_subscriptions_give_access_to_data(state: str, in_force: bool) -> None:
    assert Subscription(NAME, state, "mine", "acme").in_force is in_force


def test_a_state_without_a_name_is_its_number() -> None:
    assert state_name(int(ah.Subscription.State.STATE_STALE)) == "STATE_STALE"
    assert state_name(7) == "7"
