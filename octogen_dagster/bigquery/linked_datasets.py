"""build_linked_datasets_asset: subscribe to listings, which creates linked datasets."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import dagster as dg

from octogen_dagster.assets.definition import Metadata, asset_arguments_of, octogen_asset
from octogen_dagster.bigquery.partitions import listing_name, listing_partitions
from octogen_dagster.bigquery.resources import AnalyticsHubResource, OctogenControlPlaneResource
from octogen_dagster.bigquery.tables import (
    CONSOLE,
    EXPORT_RESTRICTIONS,
    TABLE_NAME,
    console_url,
    last_materialization,
    reported_value,
)
from octogen_dagster.errors import (
    OctogenBigQueryAccessPendingError,
    OctogenBigQueryError,
    OctogenError,
    Persistence,
)
from octogen_dagster.sharing.autosubscribe import SubscriptionPass, subscribe_with_octogen
from octogen_dagster.sharing.names import (
    TABLE,
    ListingName,
    SubscriptionPlan,
    plan_subscription,
)
from octogen_dagster.sharing.subscribe import BigQuerySubscriptionResult, subscribe
from octogen_dagster.validation import require_extras

SubscribeWithOctogen = Callable[
    [SubscriptionPass, ListingName, str | None], tuple[SubscriptionPlan, BigQuerySubscriptionResult]
]
"""A function that subscribes to a listing and updates the listing's status at Octogen."""

GRANT_WAIT_SECONDS: Sequence[float] = (30.0, 60.0, 120.0)


def build_linked_datasets_asset(
    name: str | dg.AssetSpec = "octogen_linked_datasets",
    *,
    partitions_def: dg.DynamicPartitionsDefinition = listing_partitions,
    control_plane: bool = False,
    dataset_id: Callable[[str], str | None] | None = None,
    grant_waits: Sequence[float] = GRANT_WAIT_SECONDS,
    **asset_arguments: Any,
) -> dg.AssetsDefinition:
    """Build an asset for linked BigQuery datasets, with one partition per listing.

    A materialization subscribes the `analytics_hub` resource's project to the listing. If the
    project is already subscribed, the existing subscription is reported. If Octogen's grant has not
    arrived, the run waits and retries. If the grant still does not arrive, the run fails, and
    `build_listing_sensor` requests a new run later. If the dataset id still belongs to a revoked
    subscription to the listing, the run fails. The error shows which subscription to delete. The
    asset requires an `AnalyticsHubResource` with the resource key `analytics_hub`.

    Args:
        name: The asset's name or `dagster.AssetSpec`.
        partitions_def: Partitions whose keys are listings, as returned by `listing_partition_key`.
        control_plane: Register the subscriber with Octogen, and refresh Octogen's status after
            subscribing. Requires an `OctogenControlPlaneResource` with the resource key
            `octogen_control_plane`.
        dataset_id: A function that maps a listing's resource name to its linked dataset's id.
            If it is omitted or returns None, the id is `octogen_<listing id>`, or the id that
            Octogen suggests if `control_plane` is true. The run fails if the id is taken, so use
            this function if several listings have the same id.
        grant_waits: Seconds to wait before each new attempt while Octogen's grant is missing.
        asset_arguments: Any other argument for `@dagster.asset`.

    Raises:
        MissingPackageError: The extra `bigquery` is not installed, or `control_plane` is true and
            the extra `mcp` is not installed.
    """
    extras = ("bigquery", "mcp") if control_plane else ("bigquery",)
    require_extras("build_linked_datasets_asset", *extras)

    @octogen_asset(
        {
            "partitions_def": partitions_def,
            "pool": None,
            "kinds": {"octogen", "bigquery"},
            "description": "Linked BigQuery datasets for the catalogs that Octogen shares.",
            "retry_policy": dg.RetryPolicy(max_retries=2, delay=30, backoff=dg.Backoff.EXPONENTIAL),
            "required_resource_keys": {"analytics_hub"}
            | ({"octogen_control_plane"} if control_plane else set()),
        },
        asset_arguments_of(name, asset_arguments),
    )
    def linked_datasets(context: dg.AssetExecutionContext) -> None:
        with waiting_for_grant(context, grant_waits):
            listing = listing_name(context.partition_key)
            metadata = link_dataset(
                context,
                listing,
                dataset_id and dataset_id(str(listing)),
                context.resources.analytics_hub,
                context.resources.octogen_control_plane if control_plane else None,
                with_octogen=subscribe_with_octogen,
            )
        context.add_asset_metadata(metadata)

    return linked_datasets


@contextlib.contextmanager
def waiting_for_grant(
    context: dg.AssetExecutionContext, grant_waits: Sequence[float]
) -> Iterator[None]:
    """Retry the run if Octogen's grant has not arrived yet.

    `grant_waits` contains the delay before each retry, in seconds. If the `with` block raises a
    permanent error, the run fails without retries.
    """
    try:
        yield
    except OctogenBigQueryAccessPendingError as error:
        if context.retry_number >= len(grant_waits):
            raise dg.Failure(str(error), allow_retries=False) from error
        wait = grant_waits[context.retry_number]
        context.log.info(f"{error} Retrying in {wait:g} s.")
        raise dg.RetryRequested(max_retries=len(grant_waits), seconds_to_wait=wait) from error
    except (OctogenError, ValueError) as error:
        if isinstance(error, OctogenError) and error.persistence is not Persistence.PERMANENT:
            raise
        raise dg.Failure(str(error), allow_retries=False) from error


def link_dataset(
    context: dg.AssetExecutionContext,
    listing: ListingName,
    dataset_id: str | None,
    resource: AnalyticsHubResource,
    control_plane: OctogenControlPlaneResource | None,
    *,
    with_octogen: SubscribeWithOctogen,
) -> Metadata:
    """Subscribe to a listing, and return metadata about its linked dataset.

    If there is a control plane, the listing's status at Octogen is used and updated.
    """
    datasets = _read_reported_dataset(context)
    with resource.hub() as hub:
        if control_plane is None:
            plan = plan_subscription(str(listing), resource.project, dataset_id)
            result = subscribe(hub, plan, datasets=datasets)
        else:
            with control_plane.control_plane() as octogen:
                this = SubscriptionPass(
                    octogen,
                    hub,
                    resource.project,
                    control_plane.principal,
                    datasets=datasets,
                    log=context.log.info,
                )
                plan, result = with_octogen(this, listing, dataset_id)
        restrictions: dict[str, bool] = {}
        with contextlib.suppress(OctogenBigQueryError):  # no permission to read the listing
            restrictions = hub.export_restrictions(listing)
    metadata = _metadata(plan, result)
    if restrictions:
        metadata[EXPORT_RESTRICTIONS] = dg.MetadataValue.json(restrictions)
    return metadata


def _read_reported_dataset(context: dg.AssetExecutionContext) -> dict[str, str]:
    """Return the last reported subscription's name, mapped to the id of its linked dataset."""
    record = last_materialization(context, context.asset_key)
    subscription = reported_value(record, "octogen/subscription")
    dataset = reported_value(record, "octogen/linked_dataset")
    return {subscription: dataset.rpartition(".")[2]} if subscription and dataset else {}


def _metadata(plan: SubscriptionPlan, result: BigQuerySubscriptionResult) -> Metadata:
    dataset = f"{result.linked_project}.{result.linked_dataset}"
    return {
        TABLE_NAME: f"{dataset}.{TABLE}",
        "octogen/linked_dataset": dataset,
        "octogen/state": result.state,
        "octogen/location": plan.location,
        "octogen/listing": result.listing_resource,
        "octogen/already_subscribed": result.already_subscribed,
        "octogen/sample_query": dg.MetadataValue.md(f"```sql\n{result.sample_query}\n```"),
        "octogen/subscription": result.subscription_name,
        CONSOLE: console_url(result.linked_project, result.linked_dataset),
    }
