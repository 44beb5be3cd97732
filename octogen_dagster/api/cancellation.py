"""CancelScope: ends everything that is waited for within it, from any thread."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import threading
import time
import weakref
from typing import TYPE_CHECKING, Any, TypeVar

if sys.version_info >= (3, 11):
    from asyncio import timeout as time_limit
else:
    from async_timeout import timeout as time_limit

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

_Result = TypeVar("_Result")


class ClosedError(Exception):
    """The work was told to stop, or its time is over."""


class CancelScope:
    """Work that can be told to stop, and that may have only so much time.

    Requests, waits between attempts and waits for the rate limit end soon after the scope or one
    around it is cancelled, or when its time is over. A copy by pickle is a scope of its own.

    Args:
        seconds: The time for all of the work, from now on; None for no limit.
        parent: The scope around this one, whose end ends it too.
        poll: Called about every second by the thread that waits for the work; what it raises, such
            as an interrupt, ends the wait. By default that of the scope around this one.
        clock: Monotonic seconds.

    Attributes:
        seconds: The time for all of the work, or that of the scope around it if that ends first.
        poll: As in the arguments.
    """

    def __init__(
        self,
        seconds: float | None = None,
        *,
        parent: CancelScope | None = None,
        poll: Callable[[], object] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self.poll: Callable[[], object] = poll or (parent.poll if parent else _do_nothing)
        self.seconds = float("inf") if seconds is None else seconds
        self._deadline = clock() + self.seconds
        self._cancelled = threading.Event()
        self._lock = threading.Lock()
        self._children: weakref.WeakSet[CancelScope] = weakref.WeakSet()
        self._callbacks: list[Callable[[], None]] = []
        if parent is not None:
            if parent._deadline < self._deadline:
                self.seconds, self._deadline = parent.seconds, parent._deadline
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
            children, callbacks = list(self._children), list(self._callbacks)
        for child in children:
            child.cancel()
        for callback in callbacks:
            callback()

    @contextlib.contextmanager
    def on_cancel(self, callback: Callable[[], None]) -> Iterator[None]:
        """Call a function if the scope is cancelled while the block runs, or was before.

        Args:
            callback: Called in the thread that cancels. It must not block.
        """
        with self._lock:
            cancelled = self.is_cancelled
            self._callbacks.append(callback)
        if cancelled:
            callback()
        try:
            yield
        finally:
            with self._lock:
                self._callbacks.remove(callback)

    def check(self) -> None:
        """Return if the work may go on.

        Raises:
            ClosedError: The scope is cancelled or its time is over.
        """
        if self.is_cancelled or not self.remaining:
            raise ClosedError

    def wait(self, seconds: float) -> None:
        """Block for some time.

        Raises:
            ClosedError: The scope is cancelled or its time is over. Raised at once.
        """
        self._cancelled.wait(min(seconds, self.remaining, threading.TIMEOUT_MAX))
        self.check()

    def _adopt(self, child: CancelScope) -> None:
        with self._lock:
            self._children.add(child)
            cancelled = self.is_cancelled
        if cancelled:
            child.cancel()


def _do_nothing() -> None:
    """Poll nothing."""


async def run_within(scope: CancelScope, work: Coroutine[Any, Any, _Result]) -> _Result:
    """Await work in this task until the scope ends.

    Raises:
        ClosedError: The scope was cancelled, or its time is over.
    """
    loop, task = asyncio.get_running_loop(), asyncio.current_task()

    def cancel() -> None:
        if task is not None:
            with contextlib.suppress(RuntimeError):  # the loop has just ended
                loop.call_soon_threadsafe(task.cancel)

    limit = scope.remaining
    with scope.on_cancel(cancel):
        try:
            async with time_limit(limit if limit < float("inf") else None):
                return await work
        except (asyncio.CancelledError, asyncio.TimeoutError):
            scope.check()
            raise
