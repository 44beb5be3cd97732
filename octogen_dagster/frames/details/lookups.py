"""LookupReader: looks up many products at once, in threads."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import TYPE_CHECKING

from octogen_dagster.errors import (
    OctogenAuthenticationError,
    OctogenBudgetError,
    OctogenError,
    OctogenForbiddenError,
    OctogenInsufficientCreditError,
    OctogenNotFoundError,
)
from octogen_dagster.frames.client_threads import POLL_SECONDS, ClientThreads
from octogen_dagster.frames.columns import FAILED, FOUND, GONE
from octogen_dagster.frames.decode import CheckedLookup, read_lookup

if TYPE_CHECKING:
    from collections.abc import Sequence

    from octogen_dagster.api.client import OctogenClient
    from octogen_dagster.api.connection import Connection
    from octogen_dagster.frames.details.failure_limit import FailureLimit

# Every later lookup would fail with the same error.
_ENDS_ALL = (
    OctogenAuthenticationError,
    OctogenBudgetError,
    OctogenForbiddenError,
    OctogenInsufficientCreditError,
)

_INDEXED = ("indexed", None)  # the seed generation has an index only, and does not name it


@dataclass(frozen=True, slots=True)
class Lookup:
    """The result of one lookup.

    Attributes:
        status: `FOUND`, `GONE` or `FAILED`.
        at: When the lookup ended (UTC).
        response: The response of the service; None if it was an error. A product that is gone may
            have one, read from its page.
        error: The error message of a failed lookup.
    """

    status: str
    at: datetime
    response: CheckedLookup | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Lookups:
    """Lookups that were queued together.

    Attributes:
        urls: The addresses, each once.
        results: The results so far, by address.
    """

    urls: Sequence[str]
    results: dict[str, Lookup] = field(default_factory=dict)

    @property
    def are_over(self) -> bool:
        """True if all of them have a result."""
        return len(self.results) == len(self.urls)


class LookupReader(ClientThreads):
    """Looks up products in threads.

    Args:
        connection: The settings of the service; `concurrency` lookups are made at a time.
        limit: Ends all lookups when too many fail.
    """

    def __init__(self, connection: Connection, limit: FailureLimit) -> None:
        super().__init__(connection, connection.concurrency, "octogen-lookup")
        self._limit = limit
        self._waiting: deque[tuple[str, Lookups]] = deque()

    def begin(self, urls: Sequence[str]) -> Lookups:
        """Queue lookups behind those that were queued before.

        Args:
            urls: The addresses, each once.
        """
        lookups = Lookups(urls)
        with self._changed:
            self._waiting.extend((url, lookups) for url in urls)
            self._changed.notify_all()
        return lookups

    def wait(self, lookups: Lookups) -> bool:
        """Block for at most a second, and return True if the lookups are over.

        Raises:
            OctogenSnapshotError: Too many lookups failed.
            OctogenAPIError: The API key was refused or the credit is spent.
            OctogenBudgetError: The budget is spent.
            ClosedError: The reader was closed.
        """
        with self._changed:
            self._changed.wait_for(
                lambda: lookups.are_over or self._is_over(), timeout=POLL_SECONDS
            )
            self._raise_if_over()
            return lookups.are_over

    async def _work(self, client: OctogenClient) -> None:
        while taken := self._take():
            url, lookups = taken
            lookup = await self._look_up(client, url)
            with self._changed:
                lookups.results[url] = lookup
                if lookups.are_over:
                    self._changed.notify_all()

    def _take(self) -> tuple[str, Lookups] | None:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._is_over())
            return None if self._is_over() else self._waiting.popleft()

    async def _look_up(self, client: OctogenClient, url: str) -> Lookup:
        began = time.monotonic()
        try:
            response = await client.get_raw_lookup(url, read_lookup)
        except _ENDS_ALL:
            raise
        except (OctogenError, ValueError) as error:
            if isinstance(error, OctogenNotFoundError) and error.detail == "product_not_found":
                self._limit.note_answer()
                return Lookup(GONE, datetime.now(timezone.utc))
            self._limit.note_failure(error, began)
            return Lookup(FAILED, datetime.now(timezone.utc), error=str(error))
        self._limit.note_answer()
        status = FOUND if response.source in _INDEXED else GONE
        return Lookup(status, datetime.now(timezone.utc), response)
