"""ClientThreads: threads that work for one consumer, each with a client of its own."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from typing_extensions import Self

from octogen_dagster.api.blocking import BlockingClient
from octogen_dagster.api.flow import RequestStatistics
from octogen_dagster.background import StoppedError
from octogen_dagster.errors import OctogenBudgetError, OctogenInsufficientCreditError

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from octogen_dagster.api.service import Service

POLL_SECONDS = 1.0
"""The longest time that a consumer is blocked before it gets control back."""


class ClientThreads(ABC):
    """Threads that work while the context is open, each with a client of its own.

    The consumer calls `check` while it waits; what it raises ends the work, and so does `stop`.
    """

    def __init__(
        self,
        service: Service,
        threads: int,
        name: str,
        stop: threading.Event,
        check: Callable[[], object] = lambda: None,
    ) -> None:
        self._service = service
        self._stop = stop
        self._check = check
        self._changed = threading.Condition()
        self._closed = False
        self._error: BaseException | None = None
        self._working = threads
        self._clients: list[RequestStatistics] = []
        self._threads = [
            threading.Thread(target=self._run, name=f"{name}-{number}", daemon=True)
            for number in range(threads)
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self.close()
        # When the money is spent, requests under way are paid too: what they bring is kept.
        if isinstance(error, OctogenBudgetError | OctogenInsufficientCreditError):
            self.join()

    def close(self) -> None:
        """Tell the threads to stop, without waiting; each ends after its current request."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def join(self) -> None:
        """Block until the threads have ended."""
        for thread in self._threads:
            thread.join()

    @property
    def sent(self) -> RequestStatistics:
        """What all threads together have sent so far."""
        return RequestStatistics(
            requests=sum(client.requests for client in self._clients),
            retries=sum(client.retries for client in self._clients),
            rate_limit_wait_seconds=sum(client.rate_limit_wait_seconds for client in self._clients),
        )

    @abstractmethod
    def _work(self, client: BlockingClient) -> None:
        """Do the work of one thread; the first error of any thread ends all of them."""

    def _is_over(self) -> bool:
        return self._closed or self._stop.is_set() or self._error is not None

    def _raise_if_over(self) -> None:
        self._check()
        if self._error:
            raise self._error
        if self._closed or self._stop.is_set():
            raise StoppedError

    def _run(self) -> None:
        try:
            with BlockingClient(self._service, self._stop) as client:
                self._clients.append(client.statistics)
                self._work(client)
        except StoppedError:
            self.close()
        except BaseException as error:
            with self._changed:
                self._error = self._error or error
        finally:
            with self._changed:
                self._working -= 1
                self._changed.notify_all()
