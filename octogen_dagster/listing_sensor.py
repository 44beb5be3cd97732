"""The listing sensor: sees new, newly granted and lapsed listings, and requests their datasets."""

import contextlib
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import dagster as dg
import msgspec

from octogen_dagster.api.errors import (
    OctogenBigQueryInputError,
    OctogenError,
    OctogenTimeoutError,
)
from octogen_dagster.bigquery_resources import AnalyticsHubResource
from octogen_dagster.partitions import listing_partition_key
from octogen_dagster.sensors import PARTITIONS_IN_A_TICK, RUNS_IN_A_TICK
from octogen_dagster.sharing.listings import (
    ControlPlaneListings,
    ExchangeListings,
    Listing,
    StaticListings,
)

_Result = TypeVar("_Result")

CURSOR_VERSION = 1
SECONDS_BETWEEN_CHECKS = 900
# Dagster ends a tick after 60 s; what comes of the reading must still be stored.
SECONDS_FOR_A_TICK = 35.0
_FIRST_WAIT, _LONGEST_WAIT = 600, 6 * 3600
_GRANTED, _PENDING = "awaiting_subscription", "pending"
_REVOKED, _STALE, _MISSING = "revoked", "stale", "missing"
_REPORTED_BY_OCTOGEN = {
    _PENDING: _REVOKED,
    "source_stale": _STALE,
    "refresh_failed": "refresh_failed",
    "access_grant_failed": "access_grant_failed",
}
_REPORTS_IN_A_TICK = 100


class Source(Protocol):
    """Where a sensor finds listings."""

    @property
    def resource_keys(self) -> Collection[str]:
        """The resources it needs."""

    def listings(self, resources: Any) -> list[Listing]:
        """The listings that are there now.

        Raises:
            OctogenError: They cannot be read.
        """


@dataclass(frozen=True)
class ExchangeSource:
    """The listings of a data exchange; needs viewer rights on it, which subscribers often lack.

    Args:
        exchange: `projects/<project>/locations/<location>/dataExchanges/<exchange>`.
    """

    exchange: str
    resource_keys = frozenset({"analytics_hub"})

    def listings(self, resources: Any) -> list[Listing]:
        """`Source.listings`."""
        with resources.analytics_hub.hub(SECONDS_FOR_A_TICK) as hub:
            return ExchangeListings(hub, self.exchange).listings()


@dataclass(frozen=True)
class OctogenSource:
    """The listings that Octogen shares with your organisation, with its status of each.

    Args:
        catalogs: The catalogs to look at; none means all.
    """

    catalogs: Sequence[str] = ()
    resource_keys = frozenset({"analytics_hub", "octogen_control_plane"})

    def listings(self, resources: Any) -> list[Listing]:
        """`Source.listings`."""
        octogen = resources.octogen_control_plane
        with octogen.control_plane(SECONDS_FOR_A_TICK) as control_plane:
            return ControlPlaneListings(
                control_plane,
                project=resources.analytics_hub.project,
                principal=octogen.principal,
                catalogs=self.catalogs,
            ).listings()


@dataclass(frozen=True)
class StaticSource:
    """Listings that are written down.

    Args:
        resources: Their resource names.
    """

    resources: Sequence[str]
    resource_keys = frozenset({"analytics_hub"})

    def listings(self, resources: Any) -> list[Listing]:
        """`Source.listings`."""
        return StaticListings(self.resources).listings()


class Ask(msgspec.Struct, array_like=True):
    """What was asked for a listing.

    Attributes:
        status: The listing's status then; empty where the source knows none.
        asks: Runs requested so far; makes run keys.
        tries: Runs requested since it was last in order; makes waits grow.
        asked_at: When the last one was, in seconds since 1970.
    """

    status: str = ""
    asks: int = 0
    tries: int = 0
    asked_at: int = 0


class ListingCursor(msgspec.Struct, forbid_unknown_fields=True):
    """What the sensor remembers.

    Attributes:
        asks: By partition key.
        gone: Partition keys that were reported as no longer listed.
        lapsed: Partition keys that were reported as revoked or stale, and as which.
        checked_at: When subscriptions were last looked at, in seconds since 1970.
        epoch: Makes run keys new after a cursor was lost or reset.
        version: Of this structure.
    """

    asks: dict[str, Ask] = msgspec.field(default_factory=dict)
    gone: set[str] = msgspec.field(default_factory=set)
    lapsed: dict[str, str] = msgspec.field(default_factory=dict)
    checked_at: int = 0
    epoch: int = 0
    version: int = CURSOR_VERSION

    @classmethod
    def load(cls, text: str | None, epoch: int) -> tuple["ListingCursor", bool]:
        """The cursor of the last tick, and whether one was there that cannot be read.

        Args:
            text: What Dagster stored.
            epoch: Of a cursor that begins now.
        """
        if not text:
            return cls(epoch=epoch), False
        try:
            cursor = msgspec.json.decode(text, type=cls)
        except msgspec.MsgspecError:
            return cls(epoch=epoch), True
        return (cursor, False) if cursor.version == CURSOR_VERSION else (cls(epoch=epoch), True)

    def dump(self) -> str:
        """The text that Dagster stores."""
        return msgspec.json.encode(self, order="sorted").decode()


@dataclass(frozen=True, slots=True)
class World:
    """What a tick found.

    Attributes:
        statuses: Status of each listing by partition key; empty where the source knows none.
        known: Partition keys that exist.
        subscribed: Partition keys that were materialized.
        busy: Partition keys whose runs are not finished.
        lapses: Of the subscribed ones, which are revoked or stale now.
        now: Seconds since 1970.
    """

    statuses: Mapping[str, str]
    known: Collection[str]
    subscribed: Collection[str]
    busy: Collection[str]
    lapses: Mapping[str, str]
    now: int


@dataclass(frozen=True, slots=True)
class ListingTick:
    """What one tick does.

    Attributes:
        new: Partition keys to add.
        due: Partition keys to request, each with its run key.
        waiting: Requests that are due and left to the next ticks.
        gone: Partition keys to report as no longer listed.
        lapsed: Partition keys to report as revoked or stale.
        cursor: What to remember.
    """

    new: list[str]
    due: list[tuple[str, str]]
    waiting: int
    gone: list[str]
    lapsed: dict[str, str]
    cursor: ListingCursor = field(repr=False)


def plan_tick(cursor: ListingCursor, world: World) -> ListingTick:
    """Decide what a tick does; the same world gives the same decisions.

    Args:
        cursor: What was remembered.
        world: What there is.
    """
    asks = dict(cursor.asks)
    due = []
    for key, status in world.statuses.items():
        ask = asks.get(key, Ask())
        in_order = key in world.subscribed and world.lapses.get(key) != _REVOKED
        if key not in world.busy and _is_due(ask, status, in_order=in_order, now=world.now):
            due.append(key)
        elif in_order or status not in (ask.status, _GRANTED):
            asks[key] = Ask(status, ask.asks, 0 if in_order else ask.tries, ask.asked_at)
    # What was just granted first, then those never asked for, then who waits longest.
    due.sort(
        key=lambda key: (
            not _is_news(asks.get(key, Ask()), world.statuses[key]),
            asks.get(key, Ask()).asked_at,
            key,
        )
    )
    new = [key for key in due if key not in world.known][:PARTITIONS_IN_A_TICK]
    there = {*world.known, *new}
    now = [key for key in due if key in there][:RUNS_IN_A_TICK]
    for key in now:
        ask, status = asks.get(key, Ask()), world.statuses[key]
        tries = 0 if _is_news(ask, status) else ask.tries
        asks[key] = Ask(status, ask.asks + 1, tries + 1, world.now)
    gone = sorted(cursor.asks.keys() - world.statuses.keys() - cursor.gone)[:_REPORTS_IN_A_TICK]
    news = [key for key, lapse in world.lapses.items() if cursor.lapsed.get(key) != lapse]
    lapsed = {key: world.lapses[key] for key in sorted(news)[:_REPORTS_IN_A_TICK]}
    told = {key: lapse for key, lapse in world.lapses.items() if key in lapsed or key not in news}
    return ListingTick(
        new=sorted(new),
        due=[(key, f"{key}#{cursor.epoch}.{asks[key].asks}") for key in now],
        waiting=len(due) - len(now),
        gone=gone,
        lapsed=lapsed,
        cursor=ListingCursor(
            asks=asks,
            gone=(cursor.gone | set(gone)) - world.statuses.keys(),
            lapsed=told,
            # What was lapsed and is asked for now may be in order at the next tick.
            checked_at=0 if world.lapses.keys() & set(now) else cursor.checked_at,
            epoch=cursor.epoch,
        ),
    )


def _is_news(ask: Ask, status: str) -> bool:
    """Whether Octogen says that it is granted, and did not when it was asked for last."""
    return status == _GRANTED and ask.status != _GRANTED


def _is_due(ask: Ask, status: str, *, in_order: bool, now: int) -> bool:
    if _is_news(ask, status):
        return True
    # While Octogen says that it is pending, Octogen also says when it no longer is.
    if in_order or (status == _PENDING and ask.tries):
        return False
    wait = min(_FIRST_WAIT * 2 ** max(0, ask.tries - 1), _LONGEST_WAIT) if ask.tries else 0
    return now >= ask.asked_at + wait


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
        by_key = {listing_partition_key(listing.resource): listing for listing in listings}
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
                known=set(context.instance.get_dynamic_partitions(partitions_name)),
                subscribed=subscribed,
                busy=_busy(context.instance, name),
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


def _busy(instance: dg.DagsterInstance, sensor_name: str) -> set[str]:
    """The partitions of the sensor's runs that are not finished."""
    runs = instance.get_runs(
        filters=dg.RunsFilter(
            tags={"dagster/sensor_name": sensor_name},
            statuses=[
                dg.DagsterRunStatus.QUEUED,
                dg.DagsterRunStatus.NOT_STARTED,
                dg.DagsterRunStatus.STARTING,
                dg.DagsterRunStatus.STARTED,
                dg.DagsterRunStatus.CANCELING,
            ],
        )
    )
    return {run.tags.get("dagster/partition", "") for run in runs}


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
    states: dict[tuple[str, str, str], str] = {}
    with resource.hub(SECONDS_FOR_A_TICK) as hub:
        for location in {_place(key)[0] for key in subscribed}:
            for subscription in hub.subscriptions(resource.project, location):
                with contextlib.suppress(OctogenBigQueryInputError):
                    place = _place(listing_partition_key(subscription.listing))
                    if states.get(place) != "STATE_ACTIVE":
                        states[place] = subscription.state.name
    lapses = {"STATE_STALE": _STALE, "STATE_INACTIVE": _REVOKED}
    found = {key: states.get(_place(key)) for key in subscribed}
    return {
        key: lapses.get(state or "", _MISSING)
        for key, state in found.items()
        if state != "STATE_ACTIVE"
    }


def _place(key: str) -> tuple[str, str, str]:
    """Location, exchange and listing: a project may be named by its id or its number."""
    _, location, exchange, listing = key.rsplit(":", 3)
    return location.lower(), exchange, listing
