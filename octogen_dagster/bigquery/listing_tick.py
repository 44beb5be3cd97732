"""The decisions of a listing sensor's tick, as a pure function of its cursor and its inputs."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b

import msgspec
from typing_extensions import Self

from octogen_dagster.run_ledger import Ledger, run_key
from octogen_dagster.sensor_limits import MAX_REPORTS_PER_TICK, limited
from octogen_dagster.sharing.octogen import GRANTED, Standing, standing

PENDING = "pending"
REVOKED, STALE, MISSING = "revoked", "stale", "missing"
MAX_WARNINGS_PER_TICK = 10
MAX_WARNINGS = 1_000


class ListingCursor(Ledger[str], kw_only=True):
    """The ledger of the listing sensor; its keys are the partition keys of listings.

    Attributes:
        rounds: How many rounds of attempts came before the present one, for listings where there
            were any. It makes run keys new that would otherwise repeat.
        lapsed: The state of each subscription that is not in order, such as `revoked`.
        unreported: Keys of `lapsed` that are still to be reported.
        checked_at: When subscriptions were last checked, in seconds since 1970.
        epoch: When this cursor began, in seconds since 1970. It makes run keys new after a cursor
            was lost or reset.
        warned: Digests of the warnings that were logged and still hold.
    """

    rounds: dict[str, int] = msgspec.field(default_factory=dict)
    lapsed: dict[str, str] = msgspec.field(default_factory=dict)
    unreported: set[str] = msgspec.field(default_factory=set)
    checked_at: int = 0
    epoch: int = 0
    warned: set[str] = msgspec.field(default_factory=set)

    def copy(self) -> Self:
        """An independent copy."""
        copied = super().copy()
        copied.rounds = dict(self.rounds)
        copied.lapsed = dict(self.lapsed)
        copied.unreported = set(self.unreported)
        copied.warned = set(self.warned)
        return copied

    def record_warnings(self, warnings: Collection[str]) -> list[str]:
        """Record warnings, and return those to log now.

        A warning is logged once while it holds, and again if its text changes or it returns. The
        rest of many follow with the next ticks; 1,000 are remembered.

        Args:
            warnings: All warnings of this tick.
        """
        by_digest = {blake2b(each.encode(), digest_size=6).hexdigest(): each for each in warnings}
        self.warned &= by_digest.keys()
        room = min(MAX_WARNINGS_PER_TICK, MAX_WARNINGS - len(self.warned))
        new = [digest for digest in by_digest if digest not in self.warned][:room]
        self.warned.update(new)
        return [by_digest[digest] for digest in new]


@dataclass(frozen=True, slots=True)
class TickInputs:
    """What a tick found.

    Attributes:
        statuses: What `recorded_status` says of each listing, by partition key.
        known: Partition keys that exist.
        subscribed: Partition keys that were materialized.
        unfinished: Partition keys whose runs are queued or running.
        lapses: The state of each subscribed listing whose subscription is not in order.
        now: Seconds since 1970.
    """

    statuses: Mapping[str, str]
    known: Collection[str]
    subscribed: Collection[str]
    unfinished: Collection[str]
    lapses: Mapping[str, str]
    now: int

    def is_in_order(self, key: str) -> bool:
        """True if a listing was subscribed to and its subscription was not revoked."""
        return key in self.subscribed and self.lapses.get(key) != REVOKED


@dataclass(frozen=True, slots=True)
class ListingTick:
    """The result of one tick.

    Attributes:
        new: Partition keys to add.
        runs: The partition key and the run key of each run to request.
        waiting: Number of datasets that are due and left to the next ticks.
        gone: Partition keys to report as no longer listed.
        lapsed: State by partition key, to report as not in order.
        cursor: The cursor to store.
    """

    new: list[str]
    runs: list[tuple[str, str]]
    waiting: int
    gone: list[str]
    lapsed: dict[str, str]
    cursor: ListingCursor = field(repr=False)


def recorded_status(status: str | None) -> str:
    """Return the word that the ledger has for a status, so that a new word changes nothing.

    Args:
        status: Octogen's status of a listing; None if there is none.

    Returns:
        `pending` for every status of a listing that is not granted yet, the empty text for None,
        and any other status as it is.
    """
    if status is None:
        return ""
    return PENDING if standing(status) is Standing.PENDING else status


def plan_tick(cursor: ListingCursor, inputs: TickInputs) -> ListingTick:
    """Decide what a tick requests, adds and reports. Equal arguments give equal results.

    Args:
        cursor: The cursor of the last tick. It is not changed.
        inputs: What the tick found.
    """
    ledger = cursor.copy()
    due = _due_keys(ledger, inputs)
    _record_statuses(ledger, inputs, set(due))
    due.sort(key=lambda key: _urgency(ledger, key, inputs.statuses[key]))
    new, keys = limited(due, inputs.known)
    runs = [(key, _request_run(ledger, key, inputs)) for key in keys]
    lapsed = _report_lapses(ledger, inputs.lapses)
    # The subscription of a lapsed listing that was requested may be in order at the next tick.
    if inputs.lapses.keys() & {*keys, *inputs.unfinished}:
        ledger.checked_at = 0
    return ListingTick(
        new=sorted(new),
        runs=runs,
        waiting=len(due) - len(runs),
        gone=ledger.report_gone(inputs.statuses.keys()),
        lapsed=lapsed,
        cursor=ledger,
    )


def _due_keys(ledger: ListingCursor, inputs: TickInputs) -> list[str]:
    """The listings to request now or, if they are too many, in the next ticks."""
    overdue = set(ledger.overdue(inputs.now))
    return [
        key
        for key, status in inputs.statuses.items()
        if key not in inputs.unfinished
        and _is_due(ledger, key, status, in_order=inputs.is_in_order(key), overdue=overdue)
    ]


def _is_due(
    ledger: ListingCursor, key: str, status: str, *, in_order: bool, overdue: Collection[str]
) -> bool:
    """True if a run is to be requested for a listing that has no unfinished one."""
    if status and standing(status) is Standing.WITHDRAWN:
        return False
    # An active subscription that can be subscribed to again was deleted by its owner: do not
    # recreate it, unless the grant was pending in between.
    if _newly_granted(ledger, key, status) and (
        not in_order or ledger.requested.get(key) == PENDING
    ):
        return True
    if in_order:
        return False
    if key not in ledger.unconfirmed:
        return True
    # A pending grant is not requested again: Octogen reports when it is granted.
    return status != PENDING and key in overdue


def _newly_granted(ledger: ListingCursor, key: str, status: str) -> bool:
    """True if Octogen reports a grant that it did not report at the last request."""
    return status == GRANTED and ledger.requested.get(key) != GRANTED


def _record_statuses(ledger: ListingCursor, inputs: TickInputs, due: Collection[str]) -> None:
    """Confirm what is in order, and record statuses that changed, except for the due keys.

    A grant is recorded by the request that it leads to, so that none is missed. A listing that was
    never requested is not recorded, although a tick that crashed may have begun its run: the next
    request then has the same run key.
    """
    for key, status in inputs.statuses.items():
        if key in due:
            continue
        if inputs.is_in_order(key):
            ledger.confirm(key)
            ledger.requested[key] = status
        elif key in ledger.requested and status != GRANTED:
            ledger.requested[key] = status


def _urgency(ledger: ListingCursor, key: str, status: str) -> tuple[bool, bool, int, str]:
    """The sort key of a due listing.

    New grants come first, then listings that were never requested, then who waits longest.
    """
    attempt = ledger.unconfirmed.get(key)
    return (
        not _newly_granted(ledger, key, status),
        key in ledger.requested,
        attempt.next_at if attempt else 0,
        key,
    )


def _request_run(ledger: ListingCursor, key: str, inputs: TickInputs) -> str:
    """Record a run; return its run key."""
    status = inputs.statuses[key]
    new_round = key not in ledger.unconfirmed or _newly_granted(ledger, key, status)
    if new_round and key in ledger.requested:
        ledger.rounds[key] = ledger.rounds.get(key, 0) + 1
    attempt = ledger.request(key, status, now=inputs.now, new_round=new_round)
    return run_key(
        key,
        ledger.epoch,
        round_number=ledger.rounds.get(key, 0),
        attempts=attempt.attempts,
    )


def _report_lapses(ledger: ListingCursor, lapses: Mapping[str, str]) -> dict[str, str]:
    """Record the lapses, and return those to report in this tick."""
    changed = {
        key
        for key, lapse in lapses.items()
        if key in ledger.unreported or ledger.lapsed.get(key) != lapse
    }
    reported = {key: lapses[key] for key in sorted(changed)[:MAX_REPORTS_PER_TICK]}
    ledger.lapsed = dict(lapses)
    ledger.unreported = changed - reported.keys()
    return reported
