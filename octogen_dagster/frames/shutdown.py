"""Ends the reads that queries left unfinished, before the interpreter goes.

Polars runs a source's generator in a thread of its own, and a query that has enough (a filtered
`head`) leaves it running or suspended. A thread of Rust that wants back into Python while the
interpreter finalizes aborts the process ("exception not rethrown", Python 3.11 to 3.13).
"""

from __future__ import annotations

import atexit
import threading
import weakref
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_TURN_TIMEOUT = 5.0
_RETURN_TIMEOUT = 0.1


class Turn:
    """A read's turn to run Python: held while it works, let go while Polars has the word.

    Use it as a context manager around each step of a generator.

    Attributes:
        stop: Called at exit, to make the step that is under way end soon.
    """

    def __init__(self) -> None:
        self.stop: Callable[[], None] | None = None
        self._lock = threading.Lock()
        _unfinished.add(self)

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def finish(self) -> None:
        """The read is over: nothing to wait for at exit."""
        _unfinished.discard(self)


_unfinished: weakref.WeakSet[Turn] = weakref.WeakSet()


def _stop_all() -> None:
    turns = list(_unfinished)
    for turn in turns:
        if turn.stop:
            turn.stop()
    for turn in turns:
        # Never released: a generator that is called again now waits until the process is gone.
        turn._lock.acquire(timeout=_TURN_TIMEOUT)
    if turns:
        threading.Event().wait(_RETURN_TIMEOUT)


atexit.register(_stop_all)
