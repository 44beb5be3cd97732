"""Work in a background thread while the calling thread stays open to signals."""

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
_LOGGER = logging.getLogger(__name__)
_Result = TypeVar("_Result")


def submit(work: Callable[[], _Result], thread_name: str) -> Future[_Result]:
    """Start work in a daemon thread."""
    future: Future[_Result] = Future()
    start(work, future, thread_name)
    return future


class Worker:
    """A daemon thread that does work in its order, from the first that it gets until `end`.

    A thread for each piece of work would hold its caller back until Python has started it.
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
        """End the thread once the work that it got is done."""
        if self._is_running:
            self._is_running = False
            self._waiting.put(None)

    def _run(self) -> None:
        while work := self._waiting.get():
            work()


class StoppedError(Exception):
    """The work was told to stop."""


@dataclass(frozen=True)
class Deadline:
    """The end of the time for some work, and whether the work was told to stop before it."""

    seconds: float
    ends_at: float
    stop: threading.Event = field(default_factory=threading.Event, compare=False)

    @classmethod
    def after(cls, seconds: float) -> Deadline:
        """Return a deadline some seconds from now."""
        return cls(seconds, time.monotonic() + seconds)

    @property
    def left(self) -> float:
        """Seconds that are left; 0 if the work was told to stop."""
        return 0.0 if self.stop.is_set() else max(0.0, self.ends_at - time.monotonic())

    def within(self, seconds: float) -> Deadline:
        """Return the deadline of a part of the work, which is never later than this one."""
        ends_at = time.monotonic() + seconds
        return Deadline(seconds, ends_at, self.stop) if ends_at < self.ends_at else self


def start(
    work: Callable[[], _Result],
    future: Future[_Result],
    thread_name: str,
    *,
    daemon: bool = True,
) -> None:
    """Start work in a thread, unless the future is cancelled before it begins.

    The thread keeps the process from ending if it is no daemon. An interrupt may be raised after
    it has started: then `future.cancel()` tells whether the work has begun.
    """
    run = functools.partial(_do, work, future)
    threading.Thread(target=run, name=thread_name, daemon=daemon).start()


def _do(work: Callable[[], _Result], future: Future[_Result]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        future.set_result(work())
    except BaseException as error:
        # Whatever ended the work: who waits for the future would otherwise never know.
        future.set_exception(error)


def wait_interruptibly(
    future: Future[Any],
    seconds: float = float("inf"),
    poll: Callable[[], object] = lambda: None,
) -> None:
    """Wait until a future is done, without raising what it raised.

    Python runs signal handlers in the main thread only. If the operating system delivers a signal
    to another thread, a main thread that waits for a lock does not notice. This function wakes up
    five times a second, so that the handler runs, and then calls `poll`, which ends the wait with
    what it raises. The future may not be done after `seconds`.
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
) -> _Result:
    """Run work in a daemon thread and return what it returns, waiting with `wait_interruptibly`.

    An interrupt of the calling thread is raised at once, without `stop`. Otherwise `stop` is set,
    and if the work has begun, it is waited for. That also holds for one that comes while the thread
    is started.
    """
    future: Future[_Result] = Future()
    try:
        start(work, future, thread_name)
        wait_interruptibly(future, poll=poll)
    except BaseException:
        if not future.cancel() and stop is not None:
            stop.set()
            wait_interruptibly(future)
        raise
    return future.result()


def throttled(
    function: Callable[[], None], seconds: float, clock: Callable[[], float] = time.monotonic
) -> Callable[[], None]:
    """Return what calls a function whenever it is called itself, but once in some seconds at most.

    The first time is some seconds after now.
    """
    called_at = clock()

    def call() -> None:
        nonlocal called_at
        now = clock()
        if now - called_at >= seconds:
            called_at = now
            function()

    return call
