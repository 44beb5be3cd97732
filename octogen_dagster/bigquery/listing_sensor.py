"""build_listing_sensor: subscribe to new listings and renew revoked subscriptions."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import dagster as dg

from octogen_dagster.assets.definition import require_asset
from octogen_dagster.assets.ticks import (
    Wanted,
    named_partitions,
    read_busy,
    request_runs,
    skip_or_fail,
)
from octogen_dagster.background import Deadline, submit, wait_interruptibly
from octogen_dagster.bigquery.listing_sources import TICK_TIMEOUT, Source
from octogen_dagster.bigquery.partitions import (
    by_partition_key,
    is_revoked,
    known_name,
    read_states,
)
from octogen_dagster.errors import OctogenError, OctogenTimeoutError
from octogen_dagster.sharing.hub import Listing, Listings
from octogen_dagster.sharing.names import ListingKey
from octogen_dagster.sharing.octogen import Action, action_of

_GRACE_SECONDS = 1.0
"""Seconds to wait after the deadline. Meanwhile, the read can raise a more specific error."""
_MAX_LINES = 10

_Result = TypeVar("_Result")


def build_listing_sensor(
    linked_datasets: dg.AssetsDefinition,
    source: Source,
    *,
    name: str = "octogen_listing_sensor",
    minimum_interval_seconds: int = 300,
    _clock: Callable[[], float] = time.time,
    _tick_timeout: float = TICK_TIMEOUT,
    **sensor_arguments: Any,
) -> dg.SensorDefinition:
    """Build a sensor that subscribes to new listings and renews revoked subscriptions.

    Each tick reads the listings. For each new listing, it adds a partition and requests a run. At
    most 50 runs are requested per tick. If a run fails, for example because the grant has not
    arrived, a new run is requested after 10 minutes, then after 20 minutes and so on, up to every 6
    hours. If Octogen reports that a listing has not been granted yet, a run is requested only every
    two days. Once Octogen reports the grant, the next tick requests a run.

    If Analytics Hub reports that a subscription was revoked, a run is requested in the same way. If
    a subscription is missing, no run is requested, because you might have deleted it on purpose.
    `build_linked_datasets_checks` reports revoked and missing subscriptions. Excluded listings are
    logged.

    If reading the listings or the subscriptions fails temporarily, the tick is skipped. The tick
    fails if permissions or credentials are missing, if a setting is invalid, or if it is the third
    tick in a row without a response.

    The sensor has no cursor. It reads the materialized partitions and the runs with the tag
    `octogen/request`.

    Args:
        linked_datasets: An asset built by `build_linked_datasets_asset`.
        source: The listing source: `ExchangeSource`, `OctogenSource` or `StaticSource`.
        name: The sensor's name.
        minimum_interval_seconds: Minimum seconds between ticks.
        sensor_arguments: Any other argument for `@dagster.sensor`.

    Raises:
        ValueError: The asset has no dynamic partitions with a name.
    """
    require_asset(linked_datasets, "linked_datasets")
    partitions = named_partitions(linked_datasets, linked_datasets.partitions_def, "listings")
    arguments = {
        "description": f"Requests runs of {linked_datasets.key.to_user_string()} for new, newly "
        "granted and revoked listings. Each tick requests at most 50 runs.",
        **sensor_arguments,
    }

    @dg.sensor(
        name=name,
        target=linked_datasets,
        minimum_interval_seconds=minimum_interval_seconds,
        required_resource_keys=set(source.resource_keys),
        **arguments,
    )
    def listing_sensor(
        context: dg.SensorEvaluationContext,
        **_: Any,  # resources, if a test calls the sensor directly
    ) -> dg.SensorResult | dg.SkipReason:
        now = _clock()
        busy = read_busy(context.instance, linked_datasets.key, now)
        subscribed = context.instance.get_materialized_partitions(linked_datasets.key)
        try:
            found, states = _within(
                _tick_timeout, lambda within: _read(source, context.resources, subscribed, within)
            )
        except (OctogenError, ValueError) as error:
            return skip_or_fail(context, name, "The listings could not be read", error)
        known = context.instance.get_dynamic_partitions(str(partitions.name))
        by_key, invalid = by_partition_key(found.listings, known)
        _log(context, found, str(partitions.name), invalid)
        wanted = _wanted(by_key)
        return request_runs(
            context,
            linked_datasets,
            partitions,
            wanted=wanted,
            done={
                each.key: each.version
                for each in wanted
                if each.key in subscribed and not is_revoked(states, by_key[each.key].name)
            },
            busy=busy,
            now=now,
            nothing_due=f"None of {len(by_key)} listings is due.",
            checks=[],  # the check covers all subscriptions and runs hourly
        )

    return listing_sensor


def _wanted(by_key: Mapping[str, Listing]) -> list[Wanted]:
    wanted = []
    for key, listing in by_key.items():
        action = action_of(listing.status)
        if listing.status and action is Action.PENDING:
            # No version: the pending status changes when a run registers the subscriber.
            wanted.append(Wanted(key, retried=False))
        elif action is not Action.SKIPPED:
            wanted.append(Wanted(key, listing.status or ""))
    return wanted


def _read(
    source: Source, resources: Any, subscribed: Iterable[str], within: Deadline
) -> tuple[Listings, Mapping[ListingKey, set[str]]]:
    """Return the source's listings, and a mapping from each listing to its subscription states.

    The subscriptions are read only if a partition has been materialized.
    """
    found = source.listings(resources, within)
    names = [name for key in subscribed if (name := known_name(key)) is not None]
    return found, read_states(resources.analytics_hub, names, within) if names else {}


def _log(
    context: dg.SensorEvaluationContext, found: Listings, partitions: str, invalid: Sequence[str]
) -> None:
    lines = [*found.notes, *(f"Skipped: {reason}" for reason in found.left_out)]
    if invalid:
        lines.append(
            f"Skipped: {len(invalid)} partitions in {partitions!r} that are not listings (such as "
            f"{invalid[0]!r}). Delete these partitions."
        )
    for line in lines[:_MAX_LINES]:
        context.log.info(line)
    if len(lines) > _MAX_LINES:
        context.log.info(f"{len(lines) - _MAX_LINES:,} more messages about listings were omitted.")


def _within(seconds: float, work: Callable[[Deadline], _Result]) -> _Result:
    """Call a function in a thread with a deadline, because calls to Google can hang."""
    within = Deadline.after(seconds)
    outcome = submit(lambda: work(within), "octogen-listings")
    try:
        wait_interruptibly(outcome, within.left + _GRACE_SECONDS)
    finally:
        within.stop.set()
    if not outcome.done():
        raise OctogenTimeoutError(
            f"The listings could not be read within {seconds:g} seconds, because Google or Octogen "
            "is slow. If this persists, configure fewer listings or catalogs in the source."
        )
    return outcome.result()
