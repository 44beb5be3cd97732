"""Work that an interrupt must not cut in two."""

from __future__ import annotations

import logging
import threading
from concurrent.futures import Future, wait
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

_SECONDS_TO_SEE_A_SIGNAL = 0.5
_LOGGER = logging.getLogger(__name__)
_Result = TypeVar("_Result")


def to_its_end(work: Callable[[], _Result], reason: str) -> _Result:
    """What `work` returns; an interrupt of this thread waits for its end, a second one does not.

    Args:
        work: Done in another thread, which Ctrl-C and a terminated Dagster run do not reach.
        reason: Why it must come to its end, for whoever interrupts.
    """
    outcome: Future[_Result] = Future()

    def run() -> None:
        try:
            outcome.set_result(work())
        except BaseException as error:
            outcome.set_exception(error)

    thread = threading.Thread(target=run, name="octogen-to-its-end", daemon=True)
    thread.start()
    try:
        _wait(outcome)
    except BaseException:
        _LOGGER.warning(f"{reason} Interrupt again to leave at once.")
        _wait(outcome)
        raise
    return outcome.result()


def _wait(outcome: Future[_Result]) -> None:
    # Where a signal reaches another thread, this one has to wake up to see it.
    while not wait([outcome], timeout=_SECONDS_TO_SEE_A_SIGNAL).done:
        pass
