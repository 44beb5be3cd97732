"""Work in a background thread while the calling thread stays open to signals."""

from __future__ import annotations

import functools
import logging
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import TYPE_CHECKING, Any, TypeVar

from typing_extensions import ParamSpec

if TYPE_CHECKING:
    from collections.abc import Callable

_SIGNAL_POLL_SECONDS = 0.2
_LOGGER = logging.getLogger(__name__)
_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")


def submit(work: Callable[[], _Result], thread_name: str) -> Future[_Result]:
    """Start work in a daemon thread.

    Unlike the thread of an executor, it does not keep the process from ending.

    Args:
        work: The function to call.
        thread_name: The name of the thread.

    Returns:
        The future of what `work` returns or raises.

    Raises:
        RuntimeError: The thread cannot be started.
    """
    future: Future[_Result] = Future()
    _start(work, future, thread_name)
    return future


class DaemonExecutor(ThreadPoolExecutor):
    """Runs each piece of work in a daemon thread of its own.

    As the default executor of an event loop, it keeps neither the loop nor the process from ending
    while a name server hangs.
    """

    def submit(
        self,
        fn: Callable[_Arguments, _Result],
        /,
        *args: _Arguments.args,
        **kwargs: _Arguments.kwargs,
    ) -> Future[_Result]:
        """`Executor.submit`."""
        return submit(functools.partial(fn, *args, **kwargs), "octogen-executor")


def _start(work: Callable[[], _Result], future: Future[_Result], thread_name: str) -> None:
    """Start work in a daemon thread, unless the future is cancelled before it begins."""

    def run() -> None:
        if not future.set_running_or_notify_cancel():
            return
        try:
            future.set_result(work())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, name=thread_name, daemon=True).start()


def wait_interruptibly(
    future: Future[Any],
    seconds: float = float("inf"),
    poll: Callable[[], object] = lambda: None,
) -> None:
    """Wait until a future is done, without raising what it raised.

    Python runs signal handlers in the main thread only. If the operating system delivers a signal
    to another thread, a main thread that waits for a lock does not notice. This function wakes up
    five times a second, so that the handler runs.

    Args:
        future: The future to wait for.
        seconds: The longest time to wait; the future may not be done after it.
        poll: Called whenever the function wakes up; what it raises ends the wait.
    """
    ends_at = time.monotonic() + seconds
    while not future.done() and (left := ends_at - time.monotonic()) > 0:
        wait([future], timeout=min(left, _SIGNAL_POLL_SECONDS))
        poll()


def run_in_thread(
    work: Callable[[], _Result],
    thread_name: str,
    interrupted: Callable[[Future[_Result]], object],
    seconds: float = float("inf"),
    poll: Callable[[], object] = lambda: None,
) -> Future[_Result]:
    """Run work in a daemon thread and wait for it, with `wait_interruptibly`.

    Args:
        work: The function to call.
        thread_name: The name of the thread.
        interrupted: Called if the calling thread is interrupted after the work has begun, also if
            that happens while the thread is started. The interrupt is raised afterwards.
        seconds: The longest time to wait; the future may not be done after it.
        poll: As for `wait_interruptibly`.

    Returns:
        The future of what `work` returns or raises.

    Raises:
        RuntimeError: The thread cannot be started.
    """
    future: Future[_Result] = Future()
    try:
        _start(work, future, thread_name)
        wait_interruptibly(future, seconds, poll)
    except BaseException:
        if not future.cancel():
            interrupted(future)
        raise
    return future


def run_uninterrupted(work: Callable[[], _Result], reason: str) -> _Result:
    """Run work that a first interrupt of the calling thread does not cut off.

    The work runs in another thread, which neither Ctrl-C nor the termination of a Dagster run
    reaches. After a first interrupt this function logs the reason, waits for the work to end and
    then raises the interrupt. A second interrupt is raised at once.

    Args:
        work: The function to call.
        reason: A sentence that says why the work must not be cut off.

    Returns:
        What `work` returns.

    Raises:
        RuntimeError: The thread cannot be started.
    """

    def interrupted(future: Future[_Result]) -> None:
        _LOGGER.warning(f"{reason} Interrupt again to leave at once.")
        wait_interruptibly(future)

    return run_in_thread(work, "octogen-uninterrupted", interrupted).result()
