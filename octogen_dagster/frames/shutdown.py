"""ExitGuard: ends unfinished executions before the interpreter exits.

Polars runs a source's generator in a thread of its own, and a query that has enough rows (a
filtered `head`) leaves it running or suspended. A thread of Rust that calls back into Python while
the interpreter finalizes aborts the process ("exception not rethrown", Python 3.11 to 3.13).
"""

from __future__ import annotations

import atexit
import threading
import weakref
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_STEP_TIMEOUT = 5.0
_RETURN_TIMEOUT = 0.1


class ExitGuard:
    """A lock, held while a generator runs Python code and released while Polars is in control.

    Use it as a context manager around each step of the generator.

    Args:
        stop: Called at exit to end the current step soon.
    """

    def __init__(self, stop: Callable[[], None]) -> None:
        self.stop = stop
        self._lock = threading.Lock()
        _unfinished.add(self)

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def finish(self) -> None:
        """Mark the execution as finished, so that it does not delay the exit."""
        _unfinished.discard(self)


_unfinished: weakref.WeakSet[ExitGuard] = weakref.WeakSet()


def _stop_all() -> None:
    guards = list(_unfinished)
    for guard in guards:
        guard.stop()
    for guard in guards:
        # It is never released: a generator that is called again waits until the process ends.
        guard._lock.acquire(timeout=_STEP_TIMEOUT)
    if guards:
        threading.Event().wait(_RETURN_TIMEOUT)


atexit.register(_stop_all)
