"""The ledger of a sensor: the runs it requested, when it requests them again, what is confirmed.

The catalog sensor and the listing sensor store a ledger each as their cursor, which operators read
in the Dagster UI. Nothing here reads a clock.
"""

from collections.abc import Set
from typing import Any, Generic, TypeVar

import dagster as dg
import msgspec
from typing_extensions import Self

from octogen_dagster.errors import OctogenError, Persistence
from octogen_dagster.sensor_limits import MAX_REPORTS_PER_TICK, backoff_seconds, is_due

CURSOR_VERSION = 1
_MAX_SKIPPED_TICKS = 2
"""Ticks in a row that are skipped while it is unclear if an error passes; the next one fails."""

_State = TypeVar("_State")


class RunAttempt(msgspec.Struct, array_like=True, frozen=True):
    """The last run requested for a key whose result has not been seen.

    Attributes:
        attempts: Runs requested in this round, this one included.
        next_at: When the next run is due unless this one is confirmed, in seconds since 1970.
        after: Storage id of the partition's last materialization before the request; 0 if there
            was none or if any materialization confirms the run.
        partition: The requested partition; empty if it is the key itself, which keeps cursors of
            thousands of keys small.
    """

    attempts: int
    next_at: int
    after: int = 0
    partition: str = ""


class Ledger(msgspec.Struct, Generic[_State], forbid_unknown_fields=True, kw_only=True):
    """What a sensor remembers of each key: the cursor of both sensors.

    A round is a series of attempts. It begins when a key is requested for a reason of its own and
    ends when a run is confirmed; within a round the waits between two attempts grow.

    Attributes:
        requested: The state that each key was last requested for, or confirmed in: a catalog's
            `lastIndexedAt`, a listing's status.
        unconfirmed: The last attempt of each key whose round has not ended.
        gone: Keys that were reported as no longer there.
        failed_ticks: Ticks since the last good one that failed in a way that may pass or not; left
            out of the cursor if there are none.
        version: Version of the cursor format.
    """

    requested: dict[str, _State] = msgspec.field(default_factory=dict)
    unconfirmed: dict[str, RunAttempt] = msgspec.field(default_factory=dict)
    gone: set[str] = msgspec.field(default_factory=set)
    failed_ticks: int | msgspec.UnsetType = msgspec.UNSET
    version: int = CURSOR_VERSION

    @classmethod
    def load(cls, text: str | None) -> tuple[Self, bool]:
        """Read the cursor of the last tick.

        Args:
            text: The cursor as Dagster stored it; None or empty on the first tick.

        Returns:
            The ledger, and True if there was a cursor that cannot be read: damaged or of another
            version. The ledger is empty then.
        """
        if not text:
            return cls(), False
        try:
            ledger = msgspec.json.decode(text, type=cls)
        except msgspec.MsgspecError:
            return cls(), True
        return (ledger, False) if ledger.version == CURSOR_VERSION else (cls(), True)

    def dump(self) -> str:
        """The text that Dagster stores; equal ledgers give equal texts."""
        return msgspec.json.encode(self, order="sorted").decode()

    def copy(self) -> Self:
        """An independent copy."""
        return msgspec.structs.replace(
            self,
            requested=dict(self.requested),
            unconfirmed=dict(self.unconfirmed),
            gone=set(self.gone),
        )

    def overdue(self, now: int) -> list[str]:
        """The keys whose last attempt is unconfirmed and whose next attempt is due.

        Args:
            now: Seconds since 1970.
        """
        return [key for key, attempt in self.unconfirmed.items() if is_due(attempt.next_at, now)]

    def request(
        self,
        key: str,
        state: _State,
        *,
        now: int,
        new_round: bool,
        after: int = 0,
        partition: str = "",
    ) -> RunAttempt:
        """Record a requested run.

        Args:
            key: The key.
            state: What the run is requested for.
            now: Seconds since 1970.
            new_round: Count attempts from 1 again.
            after: Storage id of the last materialization; see `RunAttempt.after`.
            partition: The requested partition; by default the key itself.
        """
        last = None if new_round else self.unconfirmed.get(key)
        attempts = last.attempts + 1 if last else 1
        next_at = now + backoff_seconds(attempts)
        attempt = RunAttempt(attempts, next_at, after, "" if partition == key else partition)
        self.requested[key] = state
        self.unconfirmed[key] = attempt
        return attempt

    def confirm(self, key: str) -> None:
        """End the round of a key: its run brought what it was requested for."""
        self.unconfirmed.pop(key, None)

    def report_gone(self, present: Set[str]) -> list[str]:
        """Record keys that are no longer there, and return those to report in this tick.

        A key is reported once, and again only after it came back.

        Args:
            present: The keys that are there now.
        """
        gone = sorted(self.requested.keys() - present - self.gone)[:MAX_REPORTS_PER_TICK]
        self.gone = (self.gone | set(gone)) - present
        return gone


def run_key(key: str, origin: object, *, round_number: int, attempts: int) -> str:
    """The run key of an attempt. Dagster launches a run key once.

    Args:
        key: The ledger's key.
        origin: What tells the first attempts of a key apart: the catalog's `lastIndexedAt`, or the
            time at which the ledger began.
        round_number: Rounds of the same origin that came before.
        attempts: `RunAttempt.attempts`.

    Returns:
        `<key>@<origin>~<round>#<attempt>`, without the round if it is 0 and without the attempt if
        it is 1.
    """
    round_part = f"~{round_number}" if round_number else ""
    return f"{key}@{origin}{round_part}{f'#{attempts}' if attempts > 1 else ''}"


def record_failed_tick(ledger: Ledger[Any], problem: str, error: Exception) -> None:
    """Record in the cursor that a tick's source failed, unless that makes the tick fail.

    An error that passes by itself never fails a tick; one that lasts does, as does one that is not
    of this project, a setting that is invalid. A failed tick keeps its cursor, so the ticks after
    it fail as well until one succeeds.
    """
    persistence = error.persistence if isinstance(error, OctogenError) else Persistence.PERMANENT
    if persistence is Persistence.PERMANENT:
        raise dg.Failure(f"{problem}. {error}") from None
    if persistence is Persistence.UNCLEAR:
        ledger.failed_ticks = (ledger.failed_ticks or 0) + 1
        if ledger.failed_ticks > _MAX_SKIPPED_TICKS:
            raise dg.Failure(f"{problem}, for the third tick in a row or longer. {error}") from None
