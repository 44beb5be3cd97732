"""The asset of linked datasets: each materialization subscribes to one listing."""

import contextlib
import functools
import urllib.parse
from collections.abc import Callable, Sequence
from typing import Any

import dagster as dg

from octogen_dagster.api.errors import (
    OctogenBigQueryAccessPendingError,
    OctogenBigQueryInputError,
    OctogenBigQueryUnavailableError,
    OctogenConnectionError,
    OctogenError,
    OctogenMCPRateLimitError,
)
from octogen_dagster.assets import octogen_asset
from octogen_dagster.bigquery_resources import AnalyticsHubResource, OctogenControlPlaneResource
from octogen_dagster.partitions import listing_of, listing_partitions
from octogen_dagster.sharing.autosubscribe import Action, autosubscribe
from octogen_dagster.sharing.control_plane import ControlPlane
from octogen_dagster.sharing.names import TABLE, ListingName
from octogen_dagster.sharing.subscribe import (
    BigQuerySubscriptionResult,
    SubscriptionPlan,
    planned,
    subscribe,
)

SECONDS_FOR_A_GRANT = (30.0, 60.0, 120.0)
_TRANSIENT = (
    OctogenBigQueryUnavailableError,
    OctogenConnectionError,
    OctogenMCPRateLimitError,
)
_Subscribe = Callable[[SubscriptionPlan], BigQuerySubscriptionResult]


def build_linked_datasets_asset(
    name: str = "octogen_linked_datasets",
    *,
    partitions_def: dg.DynamicPartitionsDefinition = listing_partitions,
    control_plane: bool = False,
    dataset_id: Callable[[str], str] | None = None,
    grant_waits: Sequence[float] = SECONDS_FOR_A_GRANT,
    **asset_arguments: Any,
) -> dg.AssetsDefinition:
    """An asset: a linked BigQuery dataset for each listing, one partition for each.

    A materialization subscribes the project of the resource `analytics_hub` to the listing; if it
    is subscribed already, it only reports. What a revoked subscription left behind is replaced. A
    grant that has not arrived is waited for, and then the run fails; `build_listing_sensor` asks
    again later. Needs `AnalyticsHubResource` as `analytics_hub`.

    Args:
        name: The asset's name.
        partitions_def: Partitions whose keys are listings (`listing_partition_key`).
        control_plane: Register the subscriber with Octogen, and tell Octogen about the
            subscription; needs `OctogenControlPlaneResource` as `octogen_control_plane`.
        dataset_id: From a listing's resource name to the id of its linked dataset; by default
            Octogen's suggestion, `octogen_<listing id>`.
        grant_waits: Seconds to wait for a grant, before each further try of the same run.
        asset_arguments: Any other argument of `@dagster.asset`.
    """

    @octogen_asset(
        {
            "name": name,
            "partitions_def": partitions_def,
            "pool": None,
            "kinds": {"octogen", "bigquery"},
            "description": "Linked BigQuery datasets of the catalogs that Octogen shares.",
            "retry_policy": dg.RetryPolicy(max_retries=2, delay=30, backoff=dg.Backoff.EXPONENTIAL),
            "required_resource_keys": {"analytics_hub"}
            | ({"octogen_control_plane"} if control_plane else set()),
        },
        asset_arguments,
    )
    def linked_datasets(context: dg.AssetExecutionContext) -> dg.MaterializeResult[Any]:
        resource: AnalyticsHubResource = context.resources.analytics_hub
        try:
            listing = listing_of(context.partition_key)
            plan = planned(listing, resource.project, dataset_id and dataset_id(listing))
            with resource.hub() as hub:
                carry_out = functools.partial(subscribe, hub, replace_lapsed=True)
                if control_plane:
                    result = _by_octogen(
                        context.resources.octogen_control_plane, carry_out, plan, context.log.info
                    )
                else:
                    result = carry_out(plan)
        except OctogenBigQueryAccessPendingError as error:
            if context.retry_number >= len(grant_waits):
                raise dg.Failure(str(error), allow_retries=False) from error
            wait = grant_waits[context.retry_number]
            context.log.info(f"{error} The next try is in {wait:g} s.")
            raise dg.RetryRequested(max_retries=len(grant_waits), seconds_to_wait=wait) from error
        except _TRANSIENT:
            raise
        except (OctogenError, ValueError) as error:
            raise dg.Failure(str(error), allow_retries=False) from error
        return dg.MaterializeResult(metadata=_metadata(plan, result))

    return linked_datasets


def _by_octogen(
    resource: OctogenControlPlaneResource,
    carry_out: _Subscribe,
    plan: SubscriptionPlan,
    log: Callable[[str], None],
) -> BigQuerySubscriptionResult:
    """Subscribe as `autosubscribe` does, so that Octogen knows of it.

    Raises:
        OctogenBigQueryAccessPendingError: Octogen has not granted access yet.
        OctogenError: Octogen or Analytics Hub failed.
        dagster.Failure: Octogen does not share the listing, or reports an error.
    """
    results: list[BigQuerySubscriptionResult] = []
    errors: list[OctogenError] = []

    def noted(_suggested: SubscriptionPlan) -> BigQuerySubscriptionResult:
        try:
            results.append(carry_out(plan))
        except OctogenError as error:
            errors.append(error)
            raise
        return results[-1]

    with resource.control_plane() as control_plane:
        outcome = autosubscribe(
            control_plane,
            noted,
            project=plan.project,
            principal=resource.principal,
            catalogs=[_catalog(control_plane, plan.listing)],
            apply=True,
        ).catalogs[0]
    if errors:
        raise errors[-1]
    said = f"Listing {plan.listing}: {outcome.message or outcome.status}"
    if outcome.action is Action.PENDING:
        raise OctogenBigQueryAccessPendingError(said)
    if outcome.action is Action.ALREADY_ACTIVE:
        return carry_out(plan)
    if not results:
        raise dg.Failure(said, allow_retries=False)
    if outcome.action is Action.ERROR:
        log(said)
    return results[-1]


def _catalog(control_plane: ControlPlane, listing: ListingName) -> str:
    for shared in control_plane.listings():
        with contextlib.suppress(OctogenBigQueryInputError):
            named = ListingName.parse(shared.listing_resource or "")
            # A project may be named by its id or its number.
            if shared.catalog_key and listing.same_as(named) is not False:
                return shared.catalog_key
    raise dg.Failure(
        f"Listing {listing} is none that Octogen shares with your organisation now. Its dataset, "
        "if there is one, is untouched; ask Octogen, or delete the partition.",
        allow_retries=False,
    )


def _metadata(plan: SubscriptionPlan, result: BigQuerySubscriptionResult) -> dict[str, Any]:
    dataset = f"{result.linked_project}.{result.linked_dataset}"
    place = urllib.parse.urlencode(
        {
            "project": result.linked_project,
            "p": result.linked_project,
            "d": result.linked_dataset,
            "page": "dataset",
        }
    )
    return {
        "dagster/table_name": f"{dataset}.{TABLE}",
        "octogen/linked_dataset": dataset,
        "octogen/state": result.state,
        "octogen/location": plan.location,
        "octogen/subscription": result.subscription_name,
        "octogen/listing": result.listing_resource,
        "octogen/already_subscribed": result.already_subscribed,
        "octogen/sample_query": dg.MetadataValue.md(f"```sql\n{result.sample_query}\n```"),
        "octogen/console": dg.MetadataValue.url(
            f"https://console.cloud.google.com/bigquery?{place}"
        ),
    }
