"""The listing sensor: sees new, newly granted and lapsed listings, and requests their datasets."""

import time
from collections.abc import Callable
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import Any, TypeVar

import dagster as dg

from octogen_dagster.background import submit
from octogen_dagster.bigquery.listing_matching import match_partitions
from octogen_dagster.bigquery.listing_sources import TICK_TIMEOUT, Source
from octogen_dagster.bigquery.listing_tick import ListingCursor, TickInputs, plan_tick
from octogen_dagster.bigquery.resources import AnalyticsHubResource
from octogen_dagster.bigquery.subscription_health import by_analytics_hub, merge_octogen_status
from octogen_dagster.errors import OctogenError, OctogenTimeoutError
from octogen_dagster.sensor_limits import is_due, unfinished_partitions
from octogen_dagster.sharing.listing_identity import ListingIdentity
from octogen_dagster.sharing.listings import Found, Listing

CHECK_INTERVAL_SECONDS = 900
_MAX_REASONS_PER_TICK = 10

_Result = TypeVar("_Result")


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
        ends_at, now = time.monotonic() + TICK_TIMEOUT, _seconds()
        known = set(context.instance.get_dynamic_partitions(partitions_name))
        resource: AnalyticsHubResource = context.resources.analytics_hub

        def read() -> tuple[Found, dict[str, Listing], list[str]]:
            found = source.listings(context.resources)
            with resource.hub(TICK_TIMEOUT) as hub:
                return found, *match_partitions(found.listings, known, ListingIdentity(hub).matches)

        try:
            found, by_key, odd = _in_time(read, ends_at)
        except (OctogenError, ValueError) as error:
            return dg.SkipReason(
                f"The listings could not be read, the next tick tries again. {error}"
            )
        for reason in found.left_out[:_MAX_REASONS_PER_TICK]:
            context.log.warning(f"1 of {len(found.left_out)} that are left out. {reason}")
        if odd:
            context.log.warning(
                f"{len(odd)} partitions of {partitions_name!r} are of no listing, as {odd[0]!r}, "
                "and are passed over: delete them."
            )
        # A tick that crashed is made again with the same epoch, one after a reset with another.
        epoch = int(context.last_tick_completion_time or 0)
        cursor, unreadable = ListingCursor.load(context.cursor, epoch)
        if unreadable:
            context.log.warning(
                "The cursor is of another version or damaged: every listing is looked at anew."
            )
        subscribed = context.instance.get_materialized_partitions(linked_datasets.key)
        wanted = {key: by_key[key] for key in by_key if key in subscribed}
        lapses = {key: lapse for key, lapse in cursor.lapsed.items() if key in wanted}

        def check() -> dict[str, str]:
            with resource.hub(TICK_TIMEOUT) as hub:
                return by_analytics_hub(hub, resource.project, wanted)

        if wanted and is_due(cursor.checked_at + CHECK_INTERVAL_SECONDS, now):
            try:
                lapses = _in_time(check, ends_at)
                cursor.checked_at = now
            except (OctogenError, ValueError) as error:
                context.log.warning(
                    f"Subscriptions could not be checked, a later tick does. {error}"
                )
        tick = plan_tick(
            cursor,
            TickInputs(
                statuses={key: listing.status or "" for key, listing in by_key.items()},
                known=known,
                subscribed=subscribed,
                busy=unfinished_partitions(context.instance, name),
                lapses=merge_octogen_status(lapses, wanted),
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
            skip_reason=None if tick.due else f"None of {len(by_key)} listings is due.",
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
    answer = submit(work, "octogen-listings")
    try:
        return answer.result(timeout=max(0.0, ends_at - time.monotonic()))
    except FutureTimeoutError:
        raise OctogenTimeoutError(
            f"They were not read within the {TICK_TIMEOUT:g} s that a tick has."
        ) from None
