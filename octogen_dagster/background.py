"""Run work in background threads while the calling thread stays responsive to signals."""

from __future__ import annotations

import functools
import logging
import threading
import time
from concurrent.futures import Future, wait
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

_SIGNAL_POLL_SECONDS = 0.2
_STOP_SECONDS = 60.0
_LOGGER = logging.getLogger(__name__)
_Result = TypeVar("_Result")


def submit(work: Callable[[], _Result], thread_name: str) -> Future[_Result]:
    """Start work in a daemon thread."""
    future: Future[_Result] = Future()
    start(work, future, thread_name)
    return future


class Worker:
    """A daemon thread that runs submitted work in order. The first `submit` starts the thread.

    Starting a thread for each piece of work would block the caller each time.
    """

    def __init__(self, thread_name: str) -> None:
        self._thread_name = thread_name
        self._waiting: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._is_running = False

    def submit(self, work: Callable[[], _Result]) -> Future[_Result]:
        future: Future[_Result] = Future()
        self._waiting.put(functools.partial(_do, work, future))
        if not self._is_running:
            self._is_running = True
            threading.Thread(target=self._run, name=self._thread_name, daemon=True).start()
        return future

    def end(self) -> None:
        """End the thread when its submitted work is done."""
        if self._is_running:
            self._is_running = False
            self._waiting.put(None)

    def _run(self) -> None:
        while work := self._waiting.get():
            work()


class StoppedError(Exception):
    """The work was stopped before it finished."""


@dataclass(frozen=True)
class Deadline:
    """A time limit for work. Setting `stop` ends the work early."""

    seconds: float
    ends_at: float
    stop: threading.Event = field(default_factory=threading.Event, compare=False)

    @classmethod
    def after(cls, seconds: float) -> Deadline:
        """Return a deadline that is `seconds` from now."""
        return cls(seconds, time.monotonic() + seconds)

    @property
    def left(self) -> float:
        """Seconds left until the deadline. 0 if `stop` is set."""
        return 0.0 if self.stop.is_set() else max(0.0, self.ends_at - time.monotonic())

    def within(self, seconds: float) -> Deadline:
        """Return a deadline that is `seconds` from now, or this deadline if it is earlier."""
        ends_at = time.monotonic() + seconds
        return Deadline(seconds, ends_at, self.stop) if ends_at < self.ends_at else self


def start(
    work: Callable[[], _Result],
    future: Future[_Result],
    thread_name: str,
    *,
    daemon: bool = True,
) -> None:
    """Start a thread that runs the work and stores the result in the future.

    The work is skipped if the future is cancelled first. A non-daemon thread keeps the process
    alive. If an interrupt is raised after the thread has started, `future.cancel()` returns True if
    the work has not begun.
    """
    run = functools.partial(_do, work, future)
    threading.Thread(target=run, name=thread_name, daemon=daemon).start()


def _do(work: Callable[[], _Result], future: Future[_Result]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        future.set_result(work())
    except BaseException as error:
        # Pass on BaseExceptions too, because the caller would otherwise wait forever.
        future.set_exception(error)


def wait_interruptibly(
    future: Future[Any],
    seconds: float = float("inf"),
    poll: Callable[[], object] = lambda: None,
) -> None:
    """Wait up to `seconds` for a future, without raising its exception.

    Python runs signal handlers in the main thread only. If the operating system delivers a signal
    to another thread while the main thread waits for a lock, the handler does not run. Therefore
    this function wakes up five times a second and calls `poll`. `poll` can raise an exception to
    end the wait.
    """
    ends_at = time.monotonic() + seconds
    while not future.done() and (left := ends_at - time.monotonic()) > 0:
        wait([future], timeout=min(left, _SIGNAL_POLL_SECONDS))
        poll()


def run_in_thread(
    work: Callable[[], _Result],
    thread_name: str,
    stop: threading.Event | None = None,
    poll: Callable[[], object] = lambda: None,
    *,
    _stop_seconds: float = _STOP_SECONDS,
) -> _Result:
    """Run work in a daemon thread, wait for it with `wait_interruptibly`, and return its result.

    If the calling thread is interrupted, even while the new thread starts, this function sets
    `stop` and waits up to a minute for the started work to end. If `stop` is None, the interrupt is
    raised immediately.
    """
    future: Future[_Result] = Future()
    try:
        start(work, future, thread_name)
        wait_interruptibly(future, poll=poll)
    except BaseException:
        if not future.cancel() and stop is not None:
            stop.set()
            # Bounded, because Polars can deadlock (https://github.com/pola-rs/polars/issues/27969).
            wait_interruptibly(future, _stop_seconds)
        raise
    return future.result()


def throttled(
    function: Callable[[], None], seconds: float, clock: Callable[[], float] = time.monotonic
) -> Callable[[], None]:
    """Return a wrapper that calls the function at most once every `seconds`.

    The first call happens `seconds` from now at the earliest.
    """
    called_at = clock()

    def call() -> None:
        nonlocal called_at
        now = clock()
        if now - called_at >= seconds:
            called_at = now
            function()

    return call
