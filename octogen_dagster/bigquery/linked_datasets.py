"""The asset of linked datasets: each materialization subscribes to one listing."""

import contextlib
import urllib.parse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import dagster as dg

from octogen_dagster.asset_defaults import octogen_asset
from octogen_dagster.bigquery.partitions import listing_of, listing_partitions
from octogen_dagster.bigquery.resources import AnalyticsHubResource, OctogenControlPlaneResource
from octogen_dagster.control_plane.tools import ControlPlane, SharedListing
from octogen_dagster.errors import (
    OctogenBigQueryAccessPendingError,
    OctogenBigQueryError,
    OctogenBigQueryInputError,
    OctogenBigQueryUnavailableError,
    OctogenConnectionError,
    OctogenError,
    OctogenMCPError,
)
from octogen_dagster.sharing.autosubscribe import Action, autosubscribe
from octogen_dagster.sharing.resource_names import TABLE, ListingName
from octogen_dagster.sharing.subscribe import (
    BigQuerySubscriptionResult,
    SubscriptionPlan,
    Subscriptions,
    planned,
)

GRANT_WAIT_SECONDS = (30.0, 60.0, 120.0)


def build_linked_datasets_asset(
    name: str = "octogen_linked_datasets",
    *,
    partitions_def: dg.DynamicPartitionsDefinition = listing_partitions,
    control_plane: bool = False,
    dataset_id: Callable[[str], str] | None = None,
    replace_revoked: bool = True,
    grant_waits: Sequence[float] = GRANT_WAIT_SECONDS,
    **asset_arguments: Any,
) -> dg.AssetsDefinition:
    """An asset: a linked BigQuery dataset for each listing, one partition for each.

    A materialization subscribes the project of the resource `analytics_hub` to the listing; if it
    is subscribed already, it only reports. A grant that has not arrived is waited for, and then
    the run fails; `build_listing_sensor` asks again later. Needs `AnalyticsHubResource` as
    `analytics_hub`.

    Args:
        name: The asset's name.
        partitions_def: Partitions whose keys are listings (`listing_partition_key`).
        control_plane: Register the subscriber with Octogen, and tell Octogen about the
            subscription; needs `OctogenControlPlaneResource` as `octogen_control_plane`.
        dataset_id: From a listing's resource name to the id of its linked dataset; by default
            `octogen_<listing id>`, and with `control_plane` what Octogen suggests.
        replace_revoked: Delete what a revoked subscription of the same listing left behind - its
            subscription, and the linked dataset with the access rights set on it - when it is in
            the way of a new one; otherwise the run fails and says so.
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
        replaced: list[str] = []

        def replacing(subscription: str, dataset: str) -> None:
            context.log.info(
                f"Subscription {subscription} was revoked and is in the way: it is deleted now, "
                f"and its linked dataset {dataset} with the access rights set on it."
            )
            replaced.append(subscription)

        try:
            listing = listing_of(context.partition_key)
            wanted = dataset_id and dataset_id(listing)
            with resource.hub() as hub:
                work = _Work(
                    Subscriptions(hub, _last_reported(context)),
                    planned(listing, resource.project, wanted),
                    replacing if replace_revoked else None,
                    context.log.info,
                )
                if control_plane:
                    result = work.by_octogen(context.resources.octogen_control_plane, wanted)
                else:
                    result = work.subscribed()
        except OctogenBigQueryAccessPendingError as error:
            if context.retry_number >= len(grant_waits):
                raise dg.Failure(str(error), allow_retries=False) from error
            wait = grant_waits[context.retry_number]
            context.log.info(f"{error} The next try is in {wait:g} s.")
            raise dg.RetryRequested(max_retries=len(grant_waits), seconds_to_wait=wait) from error
        except (OctogenError, ValueError) as error:
            if _transient(error):
                raise
            raise dg.Failure(str(error), allow_retries=False) from error
        metadata = _metadata(work.plan, result)
        if replaced:
            metadata["octogen/replaced_subscription"] = ", ".join(replaced)
        return dg.MaterializeResult(metadata=metadata)

    return linked_datasets


@dataclass
class _Work:
    """Subscribing to one listing.

    Attributes:
        subscriptions: The project's.
        plan: What to ask for; Octogen's suggestions go into it.
        replacing: As for `Subscriptions.subscribe`.
        log: Takes what is worth saying and no failure.
    """

    subscriptions: Subscriptions
    plan: SubscriptionPlan
    replacing: Callable[[str, str], None] | None
    log: Callable[[str], None]

    def subscribed(self) -> BigQuerySubscriptionResult:
        """Carry out the plan.

        Raises:
            OctogenBigQueryAccessPendingError: The grant has not arrived yet.
            OctogenBigQueryError: Analytics Hub failed.
        """
        return self.subscriptions.subscribe(self.plan, replacing=self.replacing)

    def by_octogen(
        self, resource: OctogenControlPlaneResource, dataset_id: str | None
    ) -> BigQuerySubscriptionResult:
        """Subscribe as `autosubscribe` does, so that Octogen knows of it.

        Args:
            resource: Octogen's MCP.
            dataset_id: The id of the linked dataset; None takes the one that Octogen suggests.

        Raises:
            OctogenBigQueryAccessPendingError: Octogen has not granted access yet.
            OctogenError: Octogen or Analytics Hub failed.
            dagster.Failure: Octogen does not share the listing, has disabled the subscriber, or
                reports an error.
        """
        results: list[BigQuerySubscriptionResult] = []
        errors: list[OctogenError] = []

        def noted(suggested: SubscriptionPlan) -> BigQuerySubscriptionResult:
            if not _same(self.plan.listing, suggested.listing):
                raise OctogenBigQueryError(
                    f"Octogen offers listing {suggested.listing} of the same catalog to this "
                    "subscriber, and not this one: ask Octogen."
                )
            try:
                self._suggest(dataset_id or suggested.dataset_id, suggested.location)
                results.append(self.subscribed())
            except OctogenError as error:
                errors.append(error)
                raise
            return results[-1]

        with resource.control_plane() as control_plane:
            shared = _shared(control_plane, self.plan.listing)
            self._suggest(dataset_id or shared.linked_dataset, shared.location)
            outcomes = autosubscribe(
                control_plane,
                noted,
                project=self.plan.project,
                principal=resource.principal,
                catalogs=[shared.catalog_key or ""],
                apply=True,
            ).catalogs
        if errors:
            raise errors[-1]
        # A catalog may have a cell for each of several listings.
        outcome = next(
            (each for each in outcomes if _named(self.plan.listing, each.listing_resource)),
            outcomes[0],
        )
        said = f"Listing {self.plan.listing}: {outcome.message or outcome.status}"
        if outcome.action is Action.PENDING and outcome.status in (None, "pending"):
            there = self.subscriptions.in_force(self.plan)
            if there is None:
                raise OctogenBigQueryAccessPendingError(said)
            self.log(f"{said} The project is subscribed all the same.")
            return there
        if outcome.action is Action.ALREADY_ACTIVE:
            return self.subscribed()
        if not results:
            raise dg.Failure(said, allow_retries=False)
        if outcome.action is Action.ERROR:
            self.log(said)
        return results[0]

    def _suggest(self, dataset_id: str | None, location: str | None) -> None:
        self.plan = planned(str(self.plan.listing), self.plan.project, dataset_id, location)


def _shared(control_plane: ControlPlane, listing: ListingName) -> SharedListing:
    for shared in control_plane.listings():
        if shared.catalog_key and _named(listing, shared.listing_resource):
            return shared
    raise dg.Failure(
        f"Listing {listing} is none that Octogen shares with your organisation now. Its dataset, "
        "if there is one, is untouched; ask Octogen, or delete the partition.",
        allow_retries=False,
    )


def _named(listing: ListingName, resource: str | None) -> bool:
    with contextlib.suppress(OctogenBigQueryInputError):
        return _same(listing, ListingName.parse(resource or ""))
    return False


def _same(listing: ListingName, other: ListingName) -> bool:
    # A project may be named by its id or its number.
    return listing.matches(other) is not False


def _last_reported(context: dg.AssetExecutionContext) -> dict[str, str]:
    """The partition's last subscription, with the id of its linked dataset."""
    records = context.instance.fetch_materializations(
        dg.AssetRecordsFilter(context.asset_key, asset_partitions=[context.partition_key]), limit=1
    ).records
    materialization = records[0].asset_materialization if records else None
    if materialization is None:
        return {}
    subscription, dataset = (
        str(materialization.metadata[name].value) if name in materialization.metadata else ""
        for name in ("octogen/subscription", "octogen/linked_dataset")
    )
    return {subscription: dataset.rpartition(".")[2]} if subscription and dataset else {}


def _transient(error: Exception) -> bool:
    """Whether a later try may go well."""
    if isinstance(error, OctogenMCPError):
        return error.retry_after is not None
    return isinstance(error, OctogenBigQueryUnavailableError | OctogenConnectionError)


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
