"""The listing sensor: sees new, newly granted and lapsed listings, and requests their datasets."""

import contextlib
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import dagster as dg

from octogen_dagster.api.errors import (
    OctogenBigQueryInputError,
    OctogenError,
    OctogenTimeoutError,
)
from octogen_dagster.bigquery_resources import AnalyticsHubResource
from octogen_dagster.listing_plan import (
    MISSING,
    PENDING,
    REVOKED,
    STALE,
    ListingCursor,
    World,
    plan_tick,
)
from octogen_dagster.listing_sources import SECONDS_FOR_A_TICK, Source
from octogen_dagster.partitions import listing_partition_key
from octogen_dagster.sharing.listings import Listing
from octogen_dagster.sharing.names import ListingName
from octogen_dagster.ticks import unfinished_partitions

SECONDS_BETWEEN_CHECKS = 900
_REPORTED_BY_OCTOGEN = {
    PENDING: REVOKED,
    "source_stale": STALE,
    "refresh_failed": "refresh_failed",
    "access_grant_failed": "access_grant_failed",
}

_Result = TypeVar("_Result")
_Place = tuple[str, str, str]


def build_listing_sensor(
    source: Source,
    linked_datasets: dg.AssetsDefinition,
    *,
    name: str = "octogen_listing_sensor",
    minimum_interval_seconds: int = 300,
    **sensor_arguments: Any,
) -> dg.SensorDefinition:
    """A sensor that subscribes to each listing when it appears, and again when it was revoked.

    Each tick lists the listings, adds a partition for each new one and requests its run, at most
    50; the rest follow on the next ticks. A listing whose run did not end well, as for a grant that
    has not arrived, is asked for again after 10 minutes, then 20, up to 6 hours; where Octogen says
    what is granted, at once when it does. A subscription that was revoked, went stale or is
    missing, and a listing that vanished, are reported once, as observations of their partitions.
    What was revoked is asked for again in the same way; what is missing is not, since you may have
    wanted that. A source that fails skips the tick with the reason.

    Args:
        source: Where listings are found: `ExchangeSource`, `OctogenSource` or `StaticSource`.
        linked_datasets: An asset of `build_linked_datasets_asset`.
        name: The sensor's name.
        minimum_interval_seconds: Between two ticks.
        sensor_arguments: Any other argument of `@dagster.sensor`.

    Raises:
        ValueError: The asset has no named dynamic partitions.
    """
    partitions_def = linked_datasets.partitions_def
    if not isinstance(partitions_def, dg.DynamicPartitionsDefinition) or not partitions_def.name:
        raise ValueError(
            f"Asset {linked_datasets.key.to_user_string()!r} must have a "
            "DynamicPartitionsDefinition with a name: listings are added to it."
        )
    partitions_name = partitions_def.name

    @dg.sensor(
        name=name,
        target=linked_datasets,
        minimum_interval_seconds=minimum_interval_seconds,
        required_resource_keys=set(source.resource_keys),
        **sensor_arguments,
    )
    def listing_sensor(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        ends_at, now = time.monotonic() + SECONDS_FOR_A_TICK, _seconds()
        try:
            listings = _in_time(lambda: source.listings(context.resources), ends_at)
        except (OctogenError, ValueError) as error:
            return dg.SkipReason(
                f"The listings could not be read, the next tick tries again. {error}"
            )
        # A tick that crashed is made again with the same epoch, one after a reset with another.
        epoch = int(context.last_tick_completion_time or 0)
        cursor, unreadable = ListingCursor.load(context.cursor, epoch)
        if unreadable:
            context.log.warning(
                "The cursor is of another version or damaged: every listing is looked at anew."
            )
        known = set(context.instance.get_dynamic_partitions(partitions_name))
        by_key = _by_key(listings, known)
        subscribed = context.instance.get_materialized_partitions(linked_datasets.key)
        wanted = {key: by_key[key] for key in by_key if key in subscribed}
        lapses = {key: lapse for key, lapse in cursor.lapsed.items() if key in wanted}
        if wanted and now >= cursor.checked_at + SECONDS_BETWEEN_CHECKS:
            resource = context.resources.analytics_hub
            try:
                lapses = _in_time(lambda: _lapses(resource, list(wanted)), ends_at)
                cursor.checked_at = now
            except (OctogenError, ValueError) as error:
                context.log.warning(
                    f"Subscriptions could not be checked, a later tick does. {error}"
                )
        for key, listing in wanted.items():
            if listing.status in _REPORTED_BY_OCTOGEN:
                lapses[key] = _REPORTED_BY_OCTOGEN[listing.status]
            elif listing.status == "active" and lapses.get(key) in _REPORTED_BY_OCTOGEN.values():
                del lapses[key]
        tick = plan_tick(
            cursor,
            World(
                statuses={key: listing.status or "" for key, listing in by_key.items()},
                known=known,
                subscribed=subscribed,
                busy=unfinished_partitions(context.instance, name),
                lapses=lapses,
                now=now,
            ),
        )
        for key in tick.gone:
            context.log.warning(f"Listing {key} is no longer there. Its partition is kept.")
        for key, lapse in tick.lapsed.items():
            context.log.warning(f"The subscription to listing {key} is {lapse}.")
        if tick.waiting:
            context.log.info(f"{tick.waiting} more datasets are due; the next ticks request them.")
        return dg.SensorResult(
            run_requests=[
                dg.RunRequest(run_key=run_key, partition_key=key) for key, run_key in tick.due
            ],
            skip_reason=None if tick.due else f"None of {len(listings)} listings is due.",
            dynamic_partitions_requests=[partitions_def.build_add_request(tick.new)]
            if tick.new
            else [],
            asset_events=[
                dg.AssetObservation(
                    linked_datasets.key, partition=key, metadata={"octogen/state": state}
                )
                for key, state in [*((key, "gone") for key in tick.gone), *tick.lapsed.items()]
            ],
            cursor=tick.cursor.dump(),
        )

    return listing_sensor


def _seconds() -> int:
    """Since 1970."""
    return int(time.time())


def _in_time(work: Callable[[], _Result], ends_at: float) -> _Result:
    """What `work` returns, if it does so in time: no single deadline bounds many calls.

    Raises:
        OctogenTimeoutError: It does not.
    """
    executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="octogen-listings")
    try:
        return executor.submit(work).result(timeout=max(0.0, ends_at - time.monotonic()))
    except TimeoutError:
        raise OctogenTimeoutError(
            f"They were not read within the {SECONDS_FOR_A_TICK:g} s that a tick has."
        ) from None
    finally:
        executor.shutdown(wait=False, cancel_futures=True)


def _lapses(resource: AnalyticsHubResource, subscribed: Collection[str]) -> dict[str, str]:
    """Which subscriptions are not active, by Analytics Hub.

    Raises:
        OctogenBigQueryError: It does not say.
    """
    states: defaultdict[_Place, list[tuple[ListingName, str]]] = defaultdict(list)
    with resource.hub(SECONDS_FOR_A_TICK) as hub:
        for location in {_place(_name(key))[0] for key in subscribed}:
            for subscription in hub.subscriptions(resource.project, location):
                with contextlib.suppress(OctogenBigQueryInputError):
                    name = ListingName.parse(subscription.listing)
                    states[_place(name)].append((name, subscription.state.name))
    lapses = {}
    for key in subscribed:
        listing = _name(key)
        found = {
            state for name, state in states[_place(listing)] if listing.same_as(name) is not False
        }
        if "STATE_ACTIVE" not in found:
            lapses[key] = (
                STALE
                if "STATE_STALE" in found
                else REVOKED
                if "STATE_INACTIVE" in found
                else MISSING
            )
    return lapses


def _by_key(listings: Sequence[Listing], known: Collection[str]) -> dict[str, Listing]:
    """The listings by partition key. A project that is named by its number keeps the key of its id.

    Args:
        listings: What the source says.
        known: Partition keys that exist.
    """
    by_key = {listing_partition_key(listing.resource): listing for listing in listings}
    unknown = [key for key in by_key if key not in known]
    there: defaultdict[_Place, list[str]] = defaultdict(list)
    for key in known if unknown else ():
        there[_place(_name(key))].append(key)
    for key in unknown:
        name = _name(key)
        others = [other for other in there[_place(name)] if name.same_as(_name(other)) is not False]
        if len(others) == 1:
            by_key[others[0]] = by_key.pop(key)
    return by_key


def _name(key: str) -> ListingName:
    return ListingName(*key.rsplit(":", 3))


def _place(name: ListingName) -> _Place:
    """What of a listing's name is the same, whether its project is named by id or by number."""
    return name.location.lower(), name.exchange, name.listing
