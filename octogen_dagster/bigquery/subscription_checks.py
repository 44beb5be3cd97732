"""build_linked_datasets_checks: check the subscriptions of linked datasets."""

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
    """Build the hourly `subscribed` check for linked datasets.

    The check warns about datasets whose subscription in Analytics Hub is revoked, stale or missing,
    and shows the reason for each dataset. If a subscription is stale, the publisher's data can no
    longer be queried. If you pass a listing source, the check also warns about datasets that are no
    longer listed, or that Octogen reports as failed, stale or no longer granted. The check is free
    and changes nothing. The listing sensor requests runs for revoked subscriptions.

    The check runs hourly while Dagster's automation condition sensor is on. It also runs after
    materializations that you start, but not in runs that the listing sensor requests.

    Args:
        linked_datasets: An asset built by `build_linked_datasets_asset`.
        source: A listing source, as in `build_listing_sensor`; None to query only Analytics Hub.
    """
    require_asset(linked_datasets, "linked_datasets")
    every_hour: Any = dg.AutomationCondition.cron_tick_passed(_EVERY_HOUR)

    @dg.asset_check(
        asset=linked_datasets.key,
        name=SUBSCRIBED,
        description="Each linked dataset has a working subscription.",
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
            description=f"{len(lapses):,} of {len(names):,} subscriptions do not work."
            if lapses
            else f"All {len(names):,} subscriptions work.",
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
    """Return the reason why a subscription does not work, or None if no problem is known."""
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
