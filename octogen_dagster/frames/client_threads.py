"""ClientThreads: threads that work for one consumer, each with a client of its own."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from typing_extensions import Self

from octogen_dagster.api.cancellation import ClosedError
from octogen_dagster.api.requester import RequestStatistics
from octogen_dagster.errors import OctogenBudgetError, OctogenInsufficientCreditError

if TYPE_CHECKING:
    from types import TracebackType

    from octogen_dagster.api.client import OctogenClient
    from octogen_dagster.api.connection import Connection

POLL_SECONDS = 1.0
"""The longest time that a consumer is blocked before it gets control back."""


class ClientThreads(ABC):
    """Threads that work while the context is open, each with its own event loop and client.

    Args:
        connection: The settings of the clients, which share one rate limiter. When its scope ends,
            so do the threads, and what they wait for.
        threads: The number of threads.
        name: The prefix of the names of the threads.
    """

    def __init__(self, connection: Connection, threads: int, name: str) -> None:
        self._connection = connection
        self._rate_limiter = connection.rate_limiter()
        self._changed = threading.Condition()
        self._end_of_scope = contextlib.ExitStack()
        self._closed = False
        self._error: BaseException | None = None
        self._working = threads
        self._clients: list[RequestStatistics] = []
        self._threads = [
            threading.Thread(target=self._run, name=f"{name}-{number}", daemon=True)
            for number in range(threads)
        ]

    def __enter__(self) -> Self:
        self._end_of_scope.enter_context(self._connection.scope.on_cancel(self.close))
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
        self._end_of_scope.close()
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
    async def _work(self, client: OctogenClient) -> None:
        """Do the work of one thread; the first error of any thread ends all of them."""

    def _is_over(self) -> bool:
        return self._closed or self._error is not None

    def _raise_if_over(self) -> None:
        self._connection.scope.poll()
        if self._error:
            raise self._error
        if self._closed:
            raise ClosedError

    def _run(self) -> None:
        try:
            asyncio.run(self._work_with_client())
        except ClosedError:
            self.close()
        except BaseException as error:
            with self._changed:
                self._error = self._error or error
        finally:
            with self._changed:
                self._working -= 1
                self._changed.notify_all()

    async def _work_with_client(self) -> None:
        async with self._connection.blocking_client(self._rate_limiter) as client:
            self._clients.append(client.statistics)
            await self._work(client)
