"""Threads that send requests in parallel, each over a separate connection."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import TYPE_CHECKING, Generic, Self, TypeVar

from octogen_dagster.api.blocking import BlockingClient
from octogen_dagster.api.flow import RequestStatistics
from octogen_dagster.background import StoppedError
from octogen_dagster.errors import OctogenBudgetError, OctogenInsufficientCreditError

if TYPE_CHECKING:
    from octogen_dagster.api.service import Service

_Job = TypeVar("_Job")
_Result = TypeVar("_Result")

_POLL_SECONDS = 1.0
_PUT_SECONDS = 0.2
_ENDED = object()


class Workers(Generic[_Job, _Result]):
    """Runs `work(client, job)` for each job in a thread pool while the context is open.

    Jobs are started in order. Iteration yields results as they are produced, and None about every
    second while it waits. At most `ahead` results are queued, which limits memory use. The first
    error in any thread stops all threads and is raised by the iteration. `check` is called about
    every second, and its errors are raised too.
    """

    def __init__(
        self,
        service: Service,
        jobs: Iterable[_Job],
        work: Callable[[BlockingClient, _Job], Generator[_Result, None, None]],
        *,
        threads: int,
        ahead: int,
        check: Callable[[], None],
        name: str,
    ) -> None:
        self._service = service
        self._jobs = iter(jobs)
        self._work = work
        self._check = check
        self._lock = threading.Lock()
        self._ends = threading.Event()  # threads end after their current result
        self._over = threading.Event()  # requests are cancelled too
        self._error: BaseException | None = None
        self._results: queue.Queue[object] = queue.Queue(ahead)
        self._clients: list[BlockingClient] = []
        self._threads = [
            threading.Thread(target=self._run, name=f"{name}-{number}", daemon=True)
            for number in range(threads)
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: object) -> None:
        # When the budget is exhausted, pending requests are charged too: keep their results.
        try:
            if isinstance(error, OctogenBudgetError | OctogenInsufficientCreditError):
                self.join()
        finally:
            self._over.set()

    def __iter__(self) -> Iterator[_Result | None]:
        ended = 0
        while ended < len(self._threads):
            self._check()
            try:
                result = self._results.get(timeout=_POLL_SECONDS)
            except queue.Empty:
                yield None
                continue
            if self._error:
                raise self._error
            if result is _ENDED:
                ended += 1
            else:
                yield result  # type: ignore[misc]

    @property
    def sent(self) -> RequestStatistics:
        """The requests sent by all threads so far."""
        sent = [client.statistics for client in self._clients]
        return RequestStatistics(
            sum(each.requests for each in sent),
            sum(each.retries for each in sent),
            sum(each.rate_limit_wait_seconds for each in sent),
        )

    def join(self) -> None:
        """Stop starting jobs, and wait until all threads have ended."""
        self._ends.set()
        while any(thread.is_alive() for thread in self._threads):
            self._check()
            with contextlib.suppress(queue.Empty):
                self._results.get(timeout=_PUT_SECONDS)  # discarded

    def _run(self) -> None:
        try:
            with BlockingClient(self._service, self._over, ends=self._ends) as client:
                self._clients.append(client)
                while True:
                    with self._lock:
                        job = _ENDED if self._ends.is_set() else next(self._jobs, _ENDED)
                    if job is _ENDED:
                        break
                    with contextlib.closing(self._work(client, job)) as results:  # type: ignore[arg-type]
                        for result in results:
                            self._put(result)
                            if self._ends.is_set():
                                break
        # The consumer has left, or raises another thread's error.
        except StoppedError:
            return
        except BaseException as error:
            with self._lock:
                self._error = self._error or error
            self._ends.set()
        with contextlib.suppress(StoppedError):
            self._put(_ENDED)

    def _put(self, result: object) -> None:
        while not self._over.is_set():
            try:
                return self._results.put(result, timeout=_PUT_SECONDS)
            except queue.Full:
                continue
        raise StoppedError
