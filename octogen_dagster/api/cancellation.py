"""CancelScope: ends everything that is waited for within it, from any thread."""

from __future__ import annotations

import threading
import time
import weakref
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class ClosedError(Exception):
    """The work was told to stop."""


class CancelScope:
    """Work that can be told to stop, and that may have only so much time.

    Requests, waits between attempts and waits for the rate limit end soon after the scope or one
    around it is cancelled, or when its time is over. A copy by pickle is a scope of its own.

    Args:
        seconds: The time for all of the work, from now on; None for no limit.
        parent: The scope around this one, whose end ends it too.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        seconds: float | None = None,
        *,
        parent: CancelScope | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self._deadline = float("inf") if seconds is None else clock() + seconds
        self._cancelled = threading.Event()
        self._lock = threading.Lock()
        self._children: weakref.WeakSet[CancelScope] = weakref.WeakSet()
        self._callbacks: list[Callable[[], None]] = []
        if parent is not None:
            self._deadline = min(self._deadline, parent._deadline)
            parent._adopt(self)

    def __reduce__(self) -> tuple[type[CancelScope], tuple[()]]:
        return type(self), ()

    def child(self, seconds: float | None = None) -> CancelScope:
        """Make a scope within this one.

        Args:
            seconds: The time for its work; never more than this scope has left.
        """
        return CancelScope(seconds, parent=self, clock=self._clock)

    @property
    def is_cancelled(self) -> bool:
        """True if the scope or one around it was cancelled."""
        return self._cancelled.is_set()

    @property
    def remaining(self) -> float:
        """Seconds until the time is over; 0 if it is, infinite without a limit."""
        return max(0.0, self._deadline - self._clock())

    def cancel(self) -> None:
        """Tell the work to stop, without waiting for it."""
        with self._lock:
            self._cancelled.set()
            children, callbacks = list(self._children), self._callbacks
            self._callbacks = []
        for child in children:
            child.cancel()
        for callback in callbacks:
            callback()

    def on_cancel(self, callback: Callable[[], None]) -> None:
        """Call a function when the scope is cancelled; at once if it is already.

        Args:
            callback: Called in the thread that cancels. It must not block.
        """
        with self._lock:
            if not self.is_cancelled:
                self._callbacks.append(callback)
                return
        callback()

    def wait(self, seconds: float) -> None:
        """Block for some time, or until the scope is cancelled or its time is over.

        Raises:
            ClosedError: The scope is cancelled.
        """
        if self._cancelled.wait(min(seconds, self.remaining, threading.TIMEOUT_MAX)):
            raise ClosedError

    def _adopt(self, child: CancelScope) -> None:
        with self._lock:
            self._children.add(child)
            cancelled = self.is_cancelled
        if cancelled:
            child.cancel()
