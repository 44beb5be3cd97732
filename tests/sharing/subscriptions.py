"""Subscribing to what the sandbox shares, as a test of it does."""

from typing import Any

from octogen_dagster.sharing.subscribe import BigQuerySubscriptionResult, subscribe_to_listing

PROJECT = "reader-project"
PLACES = ["both", "linked_dataset_map"]


def to(listing: str, **settings: Any) -> BigQuerySubscriptionResult:
    """Subscribe to a listing."""
    return subscribe_to_listing(listing_resource=listing, destination_project=PROJECT, **settings)
