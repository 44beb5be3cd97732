"""The sensor that requests linked datasets for new, newly granted and revoked listings."""

import contextlib
import time
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import Any, TypeVar

import dagster as dg
import msgspec

from octogen_dagster.background import Deadline, submit
from octogen_dagster.bigquery.listing_matching import match_partitions
from octogen_dagster.bigquery.listing_sources import TICK_TIMEOUT, Source
from octogen_dagster.bigquery.listing_tick import (
    ListingCursor,
    ListingTick,
    TickInputs,
    plan_tick,
    recorded_status,
)
from octogen_dagster.bigquery.subscription_health import by_analytics_hub, merge_octogen_status
from octogen_dagster.errors import OctogenError, OctogenTimeoutError
from octogen_dagster.run_ledger import record_failed_tick
from octogen_dagster.sensor_limits import is_due, unfinished_partitions
from octogen_dagster.sharing.hub import Listing

CHECK_INTERVAL_SECONDS = 900
_GRACE_SECONDS = 1.0
"""The time in which work that a tick gave up ends by itself and says why."""

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
    50; the rest follow on the next ticks. A listing whose run failed, for example because the grant
    has not arrived, is requested again after 10 minutes, then 20, up to 6 hours; one that Octogen
    reports as not granted yet, only when it reports the grant, and then at once. A subscription
    that was revoked, went stale or is missing, and a listing that vanished, are reported once, as
    observations of their partitions. A revoked subscription is requested again in the same way. A
    missing one is not: you may have deleted it on purpose. A listing that is left out is warned of
    once, in the log of the tick. A source that fails in a way that passes skips the tick with the
    reason. The tick fails if the source lacks rights, credentials or a valid setting, and if the
    source does not answer for the third tick in a row. The same holds for the check of
    subscriptions.

    Args:
        source: The source of listings: `ExchangeSource`, `OctogenSource` or `StaticSource`.
        linked_datasets: An asset of `build_linked_datasets_asset`.
        name: The sensor's name.
        minimum_interval_seconds: Seconds between two ticks.
        sensor_arguments: Any other argument of `@dagster.sensor`.

    Raises:
        ValueError: The asset has no named dynamic partitions.
    """
    return ListingSensor(source, linked_datasets, name).definition(
        minimum_interval_seconds=minimum_interval_seconds, **sensor_arguments
    )


class ListingSensor:
    """A listing sensor before Dagster wraps it.

    Args:
        source: The source of listings.
        linked_datasets: The asset whose partitions are requested.
        name: The sensor's name.
        clock: Returns the seconds since 1970.
        tick_timeout: Seconds for a tick's calls of the source and of Analytics Hub.

    Raises:
        ValueError: The asset has no named dynamic partitions.
    """

    def __init__(
        self,
        source: Source,
        linked_datasets: dg.AssetsDefinition,
        name: str = "octogen_listing_sensor",
        *,
        clock: Callable[[], float] = time.time,
        tick_timeout: float = TICK_TIMEOUT,
    ) -> None:
        self._source = source
        self._linked_datasets = linked_datasets
        self._name = name
        self._clock = clock
        self._tick_timeout = tick_timeout
        partitions = linked_datasets.partitions_def
        if not isinstance(partitions, dg.DynamicPartitionsDefinition) or not partitions.name:
            raise ValueError(
                f"Asset {linked_datasets.key.to_user_string()!r} must have a "
                "DynamicPartitionsDefinition with a name: listings are added to it."
            )
        self._partitions = partitions
        self._partitions_name = partitions.name

    def definition(self, **sensor_arguments: Any) -> dg.SensorDefinition:
        """The sensor's definition.

        Args:
            sensor_arguments: Arguments of `@dagster.sensor` except `name`, `target` and
                `required_resource_keys`.
        """

        description = (
            f"Requests {self._linked_datasets.key.to_user_string()} for each listing that is new, "
            "newly granted or revoked, and reports subscriptions that ended."
        )

        @dg.sensor(
            name=self._name,
            target=self._linked_datasets,
            required_resource_keys=set(self._source.resource_keys),
            **{"description": description, **sensor_arguments},
        )
        def listing_sensor(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
            return self._evaluate(context)

        return listing_sensor

    def _evaluate(self, context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        within = Deadline.after(self._tick_timeout)
        try:
            return self._evaluate_within(within, context)
        finally:
            within.stop.set()

    def _evaluate_within(
        self, within: Deadline, context: dg.SensorEvaluationContext
    ) -> dg.SensorResult | dg.SkipReason:
        now = int(self._clock())
        known = set(context.instance.get_dynamic_partitions(self._partitions_name))
        cursor = _load_cursor(context)
        try:
            listings, warnings = _call_within(
                within,
                "The listings",
                lambda: self._read_listings(context.resources, known, within),
            )
        except (OctogenError, ValueError) as error:
            record_failed_tick(cursor, "The listings could not be read", error)
            context.update_cursor(cursor.dump())
            return dg.SkipReason(
                f"The listings could not be read; the next tick tries again. {error}"
            )
        subscribed = context.instance.get_materialized_partitions(self._linked_datasets.key)
        lapses = self._find_lapses(
            context,
            cursor,
            {key: listing for key, listing in listings.items() if key in subscribed},
            now,
            within,
        )
        # Not before: a tick that fails keeps its cursor, and would warn again each time.
        for warning in cursor.record_warnings(warnings):
            context.log.warning(warning)
        tick = plan_tick(
            cursor,
            TickInputs(
                statuses={
                    key: recorded_status(listing.status) for key, listing in listings.items()
                },
                known=known,
                subscribed=subscribed,
                unfinished=unfinished_partitions(context.instance, self._name),
                lapses=lapses,
                now=now,
            ),
        )
        _log(tick, context)
        return self._result(tick, len(listings))

    def _read_listings(
        self, resources: Any, known: Collection[str], within: Deadline
    ) -> tuple[dict[str, Listing], list[str]]:
        """Read the listings by partition key, and what to warn of."""
        found = self._source.listings(resources, within)
        by_key, invalid = match_partitions(found.listings, known)
        warnings = [*found.notes, *(f"Skipped a listing: {reason}" for reason in found.left_out)]
        if invalid:
            warnings.append(
                f"{len(invalid)} partitions of {self._partitions_name!r} are no listings and are "
                f"skipped, for example {invalid[0]!r}: delete them."
            )
        return by_key, warnings

    def _find_lapses(
        self,
        context: dg.SensorEvaluationContext,
        cursor: ListingCursor,
        subscribed: Mapping[str, Listing],
        now: int,
        within: Deadline,
    ) -> dict[str, str]:
        """The lapses of the subscribed listings: checked if a check is due, else remembered.

        A check that fails is repeated by the next tick, and is a failure of the tick.
        """
        lapses = {key: lapse for key, lapse in cursor.lapsed.items() if key in subscribed}
        if subscribed and is_due(cursor.checked_at + CHECK_INTERVAL_SECONDS, now):
            try:
                lapses = _call_within(
                    within,
                    "The subscriptions",
                    lambda: self._check(context.resources, subscribed, within),
                )
            except (OctogenError, ValueError) as error:
                record_failed_tick(cursor, "The subscriptions could not be checked", error)
                context.log.warning(
                    f"Subscriptions could not be checked, a later tick checks them. {error}"
                )
                return merge_octogen_status(lapses, subscribed)
            cursor.checked_at = now
        cursor.failed_ticks = msgspec.UNSET
        return merge_octogen_status(lapses, subscribed)

    def _check(
        self, resources: Any, subscribed: Mapping[str, Listing], within: Deadline
    ) -> dict[str, str]:
        with resources.analytics_hub.hub(within=within) as hub:
            return by_analytics_hub(hub, resources.analytics_hub.project, subscribed)

    def _result(self, tick: ListingTick, listings: int) -> dg.SensorResult:
        states = [*((key, "gone") for key in tick.gone), *tick.lapsed.items()]
        return dg.SensorResult(
            run_requests=[
                dg.RunRequest(
                    run_key=run_key,
                    partition_key=key,
                    asset_selection=[self._linked_datasets.key],  # or the run shows no target
                )
                for key, run_key in tick.runs
            ],
            skip_reason=None if tick.runs else f"None of {listings} listings is due.",
            dynamic_partitions_requests=[self._partitions.build_add_request(tick.new)]
            if tick.new
            else [],
            asset_events=[
                dg.AssetObservation(
                    self._linked_datasets.key, partition=key, metadata={"octogen/state": state}
                )
                for key, state in states
            ],
            cursor=tick.cursor.dump(),
        )


def _load_cursor(context: dg.SensorEvaluationContext) -> ListingCursor:
    cursor, unreadable = ListingCursor.load(context.cursor)
    if unreadable:
        context.log.warning(
            "The cursor is of another version or damaged: every listing is checked anew."
        )
    if unreadable or not context.cursor:
        # A tick that crashed is repeated with the same epoch; a tick after a reset has another.
        cursor.epoch = int(context.last_tick_completion_time or 0)
    return cursor


def _log(tick: ListingTick, context: dg.SensorEvaluationContext) -> None:
    for key in tick.gone:
        context.log.warning(f"Listing {key} is no longer there. Its partition is kept.")
    for key, lapse in tick.lapsed.items():
        context.log.warning(f"The subscription to listing {key} is {lapse}.")
    if tick.waiting:
        context.log.info(f"{tick.waiting} more datasets are due; the next ticks request them.")


def _call_within(within: Deadline, subject: str, work: Callable[[], _Result]) -> _Result:
    """Run work in a thread and return its result.

    Args:
        within: The time for the work, which ends it too.
        subject: What is read, which the error message begins with.
        work: Reads it.

    Raises:
        OctogenTimeoutError: It does not return in time.
        Exception: What the work raises.
    """
    outcome = submit(work, "octogen-listings")
    with contextlib.suppress(FutureTimeoutError):
        return outcome.result(timeout=within.left + _GRACE_SECONDS)
    raise OctogenTimeoutError(
        f"{subject} were not read within the {within.seconds:g} s that a tick has: Google or "
        "Octogen is slow. If it stays so, name fewer listings or catalogs in the source."
    )
