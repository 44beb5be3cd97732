"""A listing has one partition, whether its project is named by id or by number."""

from collections.abc import Callable
from typing import Any

import dagster as dg
import pytest
from google.cloud import bigquery_analyticshub_v1 as ah
from hypothesis import given
from hypothesis import strategies as st

import octogen_dagster as od
from octogen_dagster.bigquery.partitions import listing_of, listing_partition_key
from tests.messages import Golden
from tests.results import failure
from tests.servers.google import BY_NUMBER, PROJECT, Google
from tests.servers.google import LISTING as BY_ID

DATASET = ah.Listing.BigQueryDatasetSource(dataset="projects/123/datasets/acme_v1")
ids = st.from_regex(r"[A-Za-z0-9_-]{1,20}", fullmatch=True)
projects = st.from_regex(
    r"([a-z]{1,9}\.[a-z]{1,3}:)?[a-z][a-z0-9-]{1,20}|[0-9]{6,12}", fullmatch=True
)


@given(projects, st.sampled_from(["us", "EU", "europe-west3"]), ids, ids)
def test_a_partition_key_turns_back_into_its_listing(
    project: str, location: str, exchange: str, listing: str
) -> None:
    resource = (
        f"projects/{project}/locations/{location}/dataExchanges/{exchange}/listings/{listing}"
    )
    key = listing_partition_key(resource)
    assert key == f"{project}:{location}:{exchange}:{listing}"
    assert listing_of(key) == resource


def requested(
    instance: dg.DagsterInstance, endpoint: str, *listings: str
) -> tuple[list[str | None], list[Any]]:
    """The partitions that a tick requests runs for, and those that it adds."""
    resources = {"analytics_hub": od.AnalyticsHubResource(project=PROJECT, endpoint=endpoint)}
    asset = od.build_linked_datasets_asset()
    sensor = od.build_listing_sensor(asset, od.StaticSource(listings))
    defs = dg.Definitions(assets=[asset], sensors=[sensor], resources=resources)
    context = dg.build_sensor_context(
        instance=instance, repository_def=defs.get_repository_def(), resources=resources
    )
    with dg.partition_loading_context(dynamic_partitions_store=instance):
        tick = sensor.evaluate_tick(context)
    return (
        [request.partition_key for request in tick.run_requests or ()],
        list(tick.dynamic_partitions_requests or ()),
    )


@pytest.mark.parametrize(
    ("known", "listed", "visible"),
    [
        (BY_ID, [BY_NUMBER], True),
        (BY_ID, [BY_NUMBER], False),
        (BY_NUMBER, [BY_ID], True),
        (BY_NUMBER, [BY_ID], False),
        (BY_ID, [BY_ID, BY_NUMBER], True),
        (BY_NUMBER, [BY_ID, BY_NUMBER], True),
    ],
)
def test_the_partition_that_is_there_is_requested(
    known: str, listed: list[str], visible: bool, instance: dg.DagsterInstance
) -> None:
    instance.add_dynamic_partitions("octogen_listings", [listing_partition_key(known)])
    google = Google(
        [ah.Listing(name=each, bigquery_dataset=DATASET) for each in (BY_ID, BY_NUMBER)]
    )
    if not visible:
        google.refuse("GetListing", "PERMISSION_DENIED", times=9)
    with google.running() as endpoint:
        assert requested(instance, endpoint, *listed) == ([listing_partition_key(known)], [])


@pytest.mark.parametrize("build", [od.build_linked_products_asset, od.build_linked_snapshot_asset])
@pytest.mark.parametrize(("known", "wanted"), [(BY_ID, BY_NUMBER), (BY_NUMBER, BY_ID)])
def test_a_linked_table_of_the_other_name_is_an_error_that_names_the_partition(
    golden: Golden,
    build: Callable[..., dg.AssetsDefinition],
    known: str,
    wanted: str,
    instance: dg.DagsterInstance,
) -> None:
    datasets = od.build_linked_datasets_asset()
    keys = [listing_partition_key(each) for each in (known, wanted)]
    instance.add_dynamic_partitions("octogen_listings", keys)
    table = {"dagster/table_name": f"{PROJECT}.octogen_acme.products_current_v1"}
    instance.report_runless_asset_event(
        dg.AssetMaterialization(datasets.key, partition=keys[0], metadata=table)
    )
    message = failure(materialized(datasets, build(datasets), keys[1], instance))
    golden("errors", message)


def materialized(
    datasets: dg.AssetsDefinition,
    asset: dg.AssetsDefinition,
    key: str,
    instance: dg.DagsterInstance,
) -> dg.ExecuteInProcessResult:
    """A run of an asset that follows the linked datasets, without them."""
    return dg.materialize(
        [datasets, asset],
        selection=[asset],
        partition_key=key,
        instance=instance,
        resources={
            "analytics_hub": od.AnalyticsHubResource(project=PROJECT),
            "bigquery": od.AnalyticsHubResource(project=PROJECT),
        },
        raise_on_error=False,
    )
