"""Work in a thread of its own, where an interrupt of the caller does not cut it in two."""

from __future__ import annotations

import logging
import threading
from concurrent.futures import Future, wait
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

_SIGNAL_POLL_SECONDS = 0.5
_LOGGER = logging.getLogger(__name__)
_Result = TypeVar("_Result")


def begin(work: Callable[[], _Result], thread_name: str) -> Future[_Result]:
    """Begin work in a daemon thread; an executor's would keep the process from ending before it."""
    outcome: Future[_Result] = Future()

    def run() -> None:
        try:
            outcome.set_result(work())
        except BaseException as error:
            outcome.set_exception(error)

    threading.Thread(target=run, name=thread_name, daemon=True).start()
    return outcome


def run_uninterrupted(work: Callable[[], _Result], reason: str) -> _Result:
    """What `work` returns; an interrupt of this thread waits for its end, a second one does not.

    Args:
        work: Done in another thread, which Ctrl-C and a terminated Dagster run do not reach.
        reason: Why it must come to its end, for whoever interrupts.
    """
    outcome = begin(work, "octogen-to-its-end")
    try:
        _wait(outcome)
    except BaseException:
        _LOGGER.warning(f"{reason} Interrupt again to leave at once.")
        _wait(outcome)
        raise
    return outcome.result()


def _wait(outcome: Future[_Result]) -> None:
    # Where a signal reaches another thread, this one has to wake up to see it.
    while not wait([outcome], timeout=_SIGNAL_POLL_SECONDS).done:
        pass
