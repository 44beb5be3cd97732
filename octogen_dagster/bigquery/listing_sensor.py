"""The sensor that requests linked datasets for new, newly granted and revoked listings."""

import time
from collections.abc import Callable, Iterable, Mapping
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
"""The time in which work that a tick gave up ends by itself and says why."""
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
    """A sensor that subscribes to each listing when it appears, and again when it was revoked.

    Each tick lists the listings, adds a partition for each new one and requests its run, at most
    50; the rest follow on the next ticks. A listing whose run failed, for example because the grant
    has not arrived, is requested again after 10 minutes, then 20, up to 6 hours; one that Octogen
    reports as not granted yet, every two days and at once when it reports the grant. A subscription
    that Analytics Hub shows as revoked is requested again in the same way. A missing one is not:
    you may have deleted it on purpose. `build_linked_datasets_checks` names both. Listings that are
    left out are in the log of the tick. A source that fails in a way that passes skips the tick
    with the reason. The tick fails if the source lacks rights, credentials or a valid setting, and
    if it does not answer for the third tick in a row. The same holds for the list of subscriptions.

    The sensor has no memory of its own. What is subscribed to are the materialized partitions, and
    what was requested are the runs with the tag `octogen/request`.

    Args:
        linked_datasets: An asset of `build_linked_datasets_asset`.
        source: The source of listings: `ExchangeSource`, `OctogenSource` or `StaticSource`.
        name: The sensor's name.
        minimum_interval_seconds: Seconds between two ticks.
        sensor_arguments: Any other argument of `@dagster.sensor`.

    Raises:
        ValueError: The asset has no named dynamic partitions.
    """
    require_asset(linked_datasets, "linked_datasets")
    partitions = named_partitions(linked_datasets, linked_datasets.partitions_def, "listings")
    arguments = {
        "description": f"Requests {linked_datasets.key.to_user_string()} for each listing that is "
        "new, newly granted or revoked, at most 50 in a tick.",
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
        **_: Any,  # the resources, if the sensor is called directly, as tests do
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
        if invalid:
            found.left_out.append(
                f"{len(invalid)} partitions of {partitions.name!r} are no listings, for example "
                f"{invalid[0]!r}: delete them."
            )
        _log(context, found)
        wanted = [
            _wanted(key, listing)
            for key, listing in by_key.items()
            if action_of(listing.status) is not Action.SKIPPED
        ]
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
            checks=[],  # it looks at all subscriptions, and runs each hour
        )

    return listing_sensor


def _wanted(key: str, listing: Listing) -> Wanted:
    # No version: one word for "not yet" follows another when a run registers the subscriber.
    if listing.status and action_of(listing.status) is Action.PENDING:
        return Wanted(key, retried=False)
    return Wanted(key, listing.status or "")


def _read(
    source: Source, resources: Any, subscribed: Iterable[str], within: Deadline
) -> tuple[Listings, Mapping[ListingKey, set[str]]]:
    """Read the listings, and the states of the subscriptions of those that are subscribed to."""
    found = source.listings(resources, within)
    names = [name for key in subscribed if (name := known_name(key)) is not None]
    return found, read_states(resources.analytics_hub, names, within) if names else {}


def _log(context: dg.SensorEvaluationContext, found: Listings) -> None:
    lines = [*found.notes, *(f"Skipped: {reason}" for reason in found.left_out)]
    for line in lines[:_MAX_LINES]:
        context.log.info(line)
    if len(lines) > _MAX_LINES:
        context.log.info(f"{len(lines) - _MAX_LINES:,} more listings are as the last ones.")


def _within(seconds: float, work: Callable[[Deadline], _Result]) -> _Result:
    """Return the result of work in a thread, which ends with the tick: Google's calls may hang."""
    within = Deadline.after(seconds)
    outcome = submit(lambda: work(within), "octogen-listings")
    try:
        wait_interruptibly(outcome, within.left + _GRACE_SECONDS)
    finally:
        within.stop.set()
    if not outcome.done():
        raise OctogenTimeoutError(
            f"The listings were not read within the {seconds:g} s that a tick has: Google or "
            "Octogen is slow. If it stays so, name fewer listings or catalogs in the source."
        )
    return outcome.result()
