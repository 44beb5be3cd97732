"""Decides whether a tick whose source failed is skipped, or fails so that people are told."""

from typing import Any

import dagster as dg

from octogen_dagster.errors import OctogenError, Persistence
from octogen_dagster.run_ledger import Ledger

MAX_SKIPPED_TICKS = 2
"""Ticks in a row that are skipped while it is unclear if an error passes; the next one fails."""


def record_failed_tick(ledger: Ledger[Any], problem: str, error: Exception) -> None:
    """Record in the cursor that a tick's source failed, unless that makes the tick fail.

    An error that passes by itself never fails a tick. A failed tick keeps its cursor, so the ticks
    after it fail as well until one succeeds.

    Args:
        ledger: The cursor of the tick. It is changed.
        problem: What could not be done; the message begins with it.
        error: Why. One that is not of this project is a setting that is invalid.

    Raises:
        dagster.Failure: The error lasts until somebody acts, or it is unclear if it passes and it
            has not for three ticks in a row.
    """
    persistence = error.persistence if isinstance(error, OctogenError) else Persistence.PERMANENT
    if persistence is Persistence.PERMANENT:
        raise dg.Failure(f"{problem}. {error}") from None
    if persistence is Persistence.UNCLEAR:
        ledger.failed_ticks = (ledger.failed_ticks or 0) + 1
        if ledger.failed_ticks > MAX_SKIPPED_TICKS:
            raise dg.Failure(f"{problem}, for the third tick in a row or longer. {error}") from None
