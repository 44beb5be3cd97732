"""What a tick of the listing sensor does: a pure function of its memory and of what there is."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import msgspec

from octogen_dagster.sensor_limits import (
    MAX_PARTITIONS_PER_TICK,
    MAX_RUNS_PER_TICK,
    is_due,
    seconds_to_wait,
)

CURSOR_VERSION = 1
GRANTED, PENDING = "awaiting_subscription", "pending"
REVOKED, STALE, MISSING = "revoked", "stale", "missing"
_MAX_REPORTS_PER_TICK = 100


class RunAttempt(msgspec.Struct, array_like=True):
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
        lapsed: Partition keys that are revoked or stale, and which of them.
        untold: Those of `lapsed` that are still to be reported.
        checked_at: When subscriptions were last looked at, in seconds since 1970.
        epoch: Makes run keys new after a cursor was lost or reset.
        version: Of this structure.
    """

    asks: dict[str, RunAttempt] = msgspec.field(default_factory=dict)
    gone: set[str] = msgspec.field(default_factory=set)
    lapsed: dict[str, str] = msgspec.field(default_factory=dict)
    untold: set[str] = msgspec.field(default_factory=set)
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
class TickInputs:
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


def plan_tick(cursor: ListingCursor, world: TickInputs) -> ListingTick:
    """Decide what a tick does; the same world gives the same decisions.

    Args:
        cursor: What was remembered.
        world: What there is.
    """
    asks = dict(cursor.asks)
    due = []
    for key, status in world.statuses.items():
        ask = asks.get(key, RunAttempt())
        in_order = key in world.subscribed and world.lapses.get(key) != REVOKED
        if key not in world.busy and _is_due(ask, status, in_order=in_order, now=world.now):
            due.append(key)
        elif in_order or status not in (ask.status, GRANTED):
            asks[key] = RunAttempt(status, ask.asks, 0 if in_order else ask.tries, ask.asked_at)
    # What was just granted first, then those never asked for, then who waits longest.
    due.sort(
        key=lambda key: (
            not _is_news(asks.get(key, RunAttempt()), world.statuses[key]),
            asks.get(key, RunAttempt()).asked_at,
            key,
        )
    )
    new = [key for key in due if key not in world.known][:MAX_PARTITIONS_PER_TICK]
    there = {*world.known, *new}
    now = [key for key in due if key in there][:MAX_RUNS_PER_TICK]
    for key in now:
        ask, status = asks.get(key, RunAttempt()), world.statuses[key]
        tries = 0 if _is_news(ask, status) else ask.tries
        asks[key] = RunAttempt(status, ask.asks + 1, tries + 1, world.now)
    gone = sorted(cursor.asks.keys() - world.statuses.keys() - cursor.gone)[:_MAX_REPORTS_PER_TICK]
    news = {
        key
        for key, lapse in world.lapses.items()
        if key in cursor.untold or cursor.lapsed.get(key) != lapse
    }
    lapsed = {key: world.lapses[key] for key in sorted(news)[:_MAX_REPORTS_PER_TICK]}
    return ListingTick(
        new=sorted(new),
        due=[(key, f"{key}#{cursor.epoch}.{asks[key].asks}") for key in now],
        waiting=len(due) - len(now),
        gone=gone,
        lapsed=lapsed,
        cursor=ListingCursor(
            asks=asks,
            gone=(cursor.gone | set(gone)) - world.statuses.keys(),
            lapsed=dict(world.lapses),
            untold=news - lapsed.keys(),
            # What was lapsed and is asked for may be in order at the next tick.
            checked_at=0 if world.lapses.keys() & {*now, *world.busy} else cursor.checked_at,
            epoch=cursor.epoch,
        ),
    )


def _is_news(ask: RunAttempt, status: str) -> bool:
    """Whether Octogen says that it is granted, and did not when it was asked for last."""
    return status == GRANTED and ask.status != GRANTED


def _is_due(ask: RunAttempt, status: str, *, in_order: bool, now: int) -> bool:
    # What was in force and can be subscribed to again, its owner has deleted.
    if _is_news(ask, status) and (not in_order or ask.status == PENDING):
        return True
    # While Octogen says that it is pending, Octogen also says when it no longer is.
    if in_order or (status == PENDING and ask.tries):
        return False
    return is_due(ask.asked_at + seconds_to_wait(ask.tries), now)
