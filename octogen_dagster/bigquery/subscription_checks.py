"""The check `subscribed`: the subscription of each linked dataset is in order."""

from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg

from octogen_dagster.assets.definition import permanent_errors_fail, require_asset
from octogen_dagster.background import Deadline
from octogen_dagster.bigquery.listing_sources import TICK_TIMEOUT, Source
from octogen_dagster.bigquery.partitions import (
    by_partition_key,
    is_revoked,
    listing_name,
    read_states,
)
from octogen_dagster.sharing.hub import STALE, Listing
from octogen_dagster.sharing.names import ListingKey, ListingName
from octogen_dagster.sharing.octogen import LAPSED

SUBSCRIBED = "subscribed"
_EVERY_HOUR = "0 * * * *"
_MAX_SHOWN = 20


def build_linked_datasets_checks(
    linked_datasets: dg.AssetsDefinition, source: Source | None = None
) -> Sequence[dg.AssetChecksDefinition]:
    """Build the check `subscribed` of linked datasets, which runs each hour.

    It warns of each dataset whose subscription Analytics Hub shows as revoked, as stale (the
    publisher's data can no longer be queried through it) or not at all, and names them with the
    reason. With the source of the listings it also warns of datasets whose listing is no longer
    there, and of those that Octogen reports as failed, stale or no longer granted. It costs
    nothing, and changes nothing: the listing sensor requests what was revoked.

    It runs where Dagster's automation condition sensor is on, and after a materialization that you
    start; the sensor's runs leave it out.

    Args:
        linked_datasets: An asset of `build_linked_datasets_asset`.
        source: The source of the listings, as for `build_listing_sensor`; None to ask Analytics Hub
            alone.
    """
    require_asset(linked_datasets, "linked_datasets")
    every_hour: Any = dg.AutomationCondition.cron_tick_passed(_EVERY_HOUR)

    @dg.asset_check(
        asset=linked_datasets.key,
        name=SUBSCRIBED,
        description="The subscription of each linked dataset is in order.",
        automation_condition=every_hour & ~dg.AutomationCondition.in_progress(),
        required_resource_keys={"analytics_hub", *(source.resource_keys if source else ())},
    )
    def subscribed(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
        instance, resources = context.instance, context.resources
        existing = linked_datasets.partitions_def.get_partition_keys(  # type: ignore[union-attr]
            dynamic_partitions_store=instance
        )
        made = instance.get_materialized_partitions(linked_datasets.key).intersection(existing)
        within = Deadline.after(TICK_TIMEOUT)
        with permanent_errors_fail():
            names = {key: listing_name(key) for key in sorted(made)}
            states = read_states(resources.analytics_hub, names.values(), within) if names else {}
            listed = None
            if source is not None:
                listed = by_partition_key(source.listings(resources, within).listings, existing)[0]
        lapses = {
            key: lapse
            for key, name in names.items()
            if (lapse := _lapse(key, name, states, listed))
        }
        shown = list(lapses.items())[:_MAX_SHOWN]
        return dg.AssetCheckResult(
            passed=not lapses,
            severity=dg.AssetCheckSeverity.WARN,
            description=f"{len(lapses):,} of {len(names):,} subscriptions are not in order."
            if lapses
            else f"All {len(names):,} subscriptions are in order.",
            metadata={
                "octogen/subscriptions": len(names),
                "octogen/lapsed": len(lapses),
                **({"octogen/sample": dg.MetadataValue.json(dict(shown))} if shown else {}),
            },
        )

    return [subscribed]


def _lapse(
    key: str,
    name: ListingName,
    states: Mapping[ListingKey, set[str]],
    listed: Mapping[str, Listing] | None,
) -> str | None:
    """Why a subscription is not in order; None if it is.

    A state that is newer than this package counts as in order.
    """
    if not states.get(name.key):
        return "missing"
    if is_revoked(states, name):
        return "revoked"
    if listed is not None:
        listing = listed.get(key)
        if listing is None:
            return "no longer listed"
        if listing.status in LAPSED:
            return listing.status
    return "stale" if STALE in states[name.key] else None
