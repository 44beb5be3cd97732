"""Runs of linked datasets whose subscription Analytics Hub denies."""

from __future__ import annotations

from typing import Any

import dagster as dg
import pytest
from google.cloud import bigquery_analyticshub_v1 as ah

from octogen_dagster.bigquery.linked_datasets import build_linked_datasets_asset
from octogen_dagster.bigquery.partitions import listing_partition_key
from octogen_dagster.bigquery.resources import AnalyticsHubResource
from tests.results import failure
from tests.sharing.hubs import Refusal, answering, error_info, granting

LISTING = "projects/octogen/locations/us/dataExchanges/catalogs/listings/acme"
SUBSCRIBE = "analyticshub.listings.subscribe"


@pytest.mark.parametrize(
    ("details", "permissions", "reason"),
    [
        ([], [SUBSCRIBE], "The permission bigquery.datasets.create is missing"),
        ([error_info("SERVICE_DISABLED")], [], "API analyticshub.googleapis.com is not enabled"),
        ([error_info("SECURITY_POLICY_VIOLATED")], [SUBSCRIBE], "VPC Service Controls forbids it"),
    ],
    ids=["right", "api", "perimeter"],
)
def test_a_run_neither_waits_nor_retries_if_no_grant_would_help(
    instance: dg.DagsterInstance, details: list[Any], permissions: list[str], reason: str
) -> None:
    requests = []

    def deny(request: Any) -> Any:
        requests.append(request)
        raise Refusal("PERMISSION_DENIED", "Denied.", *details)

    asset = build_linked_datasets_asset()
    key = listing_partition_key(LISTING)
    instance.add_dynamic_partitions("octogen_listings", [key])
    with answering(
        ListSubscriptions=lambda _: ah.ListSubscriptionsResponse(),
        SubscribeListing=deny,
        TestIamPermissions=granting(*permissions),
    ) as endpoint:
        result = dg.materialize(
            [asset],
            partition_key=key,
            instance=instance,
            raise_on_error=False,
            resources={"analytics_hub": AnalyticsHubResource(project="mine", endpoint=endpoint)},
        )
    assert reason in failure(result)
    assert len(requests) == 1
    assert not [event for event in result.all_events if event.is_step_up_for_retry]
