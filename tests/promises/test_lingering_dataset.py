"""A dataset counts as subscribed only if a subscription to the listing has it."""

from typing import Any

import dagster as dg
import pytest

from octogen_dagster import (
    AnalyticsHubResource,
    BigQuerySubscriptionResult,
    build_linked_datasets_asset,
    listing_partition_key,
    subscribe_to_listing,
)
from octogen_dagster.errors import OctogenBigQueryError, OctogenBigQueryUnavailableError
from tests.bigquery.rest_api import refused
from tests.results import failure
from tests.sharing.google import (
    DEFAULT,
    LISTING,
    PROJECT,
    REVOKED,
    SHARED,
    Google,
    linked,
    running,
    subscription,
)

TAKEN = f"Listing {LISTING}: project {PROJECT} already has a dataset {DEFAULT}"
SILENT = subscription(state=REVOKED, dataset="", name="old")
"""A revoked subscription that does not name its dataset."""


@pytest.fixture(autouse=True)
def _no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)


def subscribe(google: Google, monkeypatch: pytest.MonkeyPatch) -> BigQuerySubscriptionResult:
    with running(google, monkeypatch) as endpoint:
        monkeypatch.setenv("ANALYTICS_HUB_EMULATOR_HOST", endpoint)
        return subscribe_to_listing(listing_resource=LISTING, destination_project=PROJECT)


def test_a_dataset_that_outlives_its_subscription_is_an_error_that_passes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(OctogenBigQueryUnavailableError) as caught:
        subscribe(Google(dataset=[linked()], refusals=100), monkeypatch)
    assert str(caught.value) == (
        f"{TAKEN}, which is linked to {SHARED}, and no subscription to this listing has it. "
        "Analytics Hub's list may lag behind, or the dataset outlives a subscription that was "
        "deleted: try again later, delete the dataset if it stays, or choose another dataset id "
        "with dataset_id= (--dataset on a command line)."
    )


def test_once_it_is_gone_the_project_is_subscribed(monkeypatch: pytest.MonkeyPatch) -> None:
    absent = refused(404, "notFound", "Not found: Dataset.")
    result = subscribe(Google(dataset=[linked(), absent]), monkeypatch)
    assert (result.already_subscribed, result.linked_dataset) == (False, DEFAULT)
    assert result.subscription_name.endswith("/subscriptions/new")


def test_once_it_is_listed_its_subscription_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    google = Google(listed=[[], [], [], [subscription()]], dataset=[linked()], refusals=100)
    result = subscribe(google, monkeypatch)
    assert (result.already_subscribed, result.linked_dataset) == (True, DEFAULT)
    assert result.subscription_name.endswith("/subscriptions/s-1")


@pytest.mark.parametrize(
    ("dataset", "reason"),
    [
        (linked(), ""),
        (
            refused(403, "accessDenied", "Access Denied"),
            f" What the dataset is linked to cannot be read (Dataset {PROJECT}.{DEFAULT}: BigQuery "
            "refused (403 accessDenied: Access Denied). To read datasets, these Google credentials "
            "need bigquery.datasets.get, which roles/bigquery.user on the project has).",
        ),
    ],
    ids=["linked", "unreadable"],
)
def test_the_revoked_subscription_that_may_have_left_it_is_named(
    dataset: Any, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    google = Google(listed=[[SILENT]], dataset=[dataset], refusals=100)
    with pytest.raises(OctogenBigQueryError) as caught:
        subscribe(google, monkeypatch)
    assert str(caught.value) == (
        f"{TAKEN}, and a revoked subscription {SILENT.name} to this listing is there, which does "
        "not say its dataset: if it is this one, delete that subscription, then subscribe again; "
        f"if not, choose another dataset id.{reason}"
    )


def test_no_partition_is_materialized_for_it(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    asset = build_linked_datasets_asset(
        grant_waits=(), retry_policy=dg.RetryPolicy(max_retries=1, delay=0)
    )
    key = listing_partition_key(LISTING)
    instance.add_dynamic_partitions("octogen_listings", [key])
    with running(Google(dataset=[linked()], refusals=100), monkeypatch) as endpoint:
        result = dg.materialize(
            [asset],
            partition_key=key,
            instance=instance,
            resources={"analytics_hub": AnalyticsHubResource(project=PROJECT, endpoint=endpoint)},
            raise_on_error=False,
        )
    assert failure(result).startswith("Exceeded max_retries of 1")
    assert instance.get_materialized_partitions(asset.key) == set()
