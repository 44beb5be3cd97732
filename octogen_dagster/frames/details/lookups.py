"""LookupReader: many product lookups at once, and when those that fail end them all."""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import TYPE_CHECKING

from octogen_dagster.errors import (
    OctogenAPIError,
    OctogenAuthenticationError,
    OctogenConnectionError,
    OctogenError,
    OctogenForbiddenError,
    OctogenInsufficientCreditError,
    OctogenNotFoundError,
    OctogenRateLimitError,
    OctogenServerError,
    OctogenSnapshotError,
)
from octogen_dagster.frames.client_threads import POLL_SECONDS, ClientThreads
from octogen_dagster.frames.details.schema import FAILED, FOUND, GONE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from octogen_dagster.api.client import OctogenClient
    from octogen_dagster.api.connection import Connection
    from octogen_dagster.api.models import MerchantProductUrlLookupResponse

# The same for every product: no lookup after it can succeed.
_ENDS_ALL = (OctogenAuthenticationError, OctogenInsufficientCreditError, OctogenForbiddenError)
_SILENCE = (OctogenConnectionError, OctogenServerError, OctogenRateLimitError)


@dataclass(frozen=True, slots=True)
class Lookup:
    """What became of one lookup.

    Attributes:
        status: found, gone or failed.
        at: When it ended (UTC).
        answer: What was found.
        error: Why it failed.
    """

    status: str
    at: datetime
    answer: MerchantProductUrlLookupResponse | None = None
    error: str | None = None


class FailureLimit:
    """Ends lookups of which too many fail, or all of them for too long. Threads may share it.

    Args:
        share: Share of the lookups, 0 to 1, that may fail.
        lookups: How many there will be at most, those that a row carried over makes needless
            among them: a product whose lookup always fails is one of all products, not one of the
            few that changed.
        patience: Seconds for which the service may leave every lookup without an answer.
    """

    def __init__(self, share: float, lookups: int, patience: float) -> None:
        self._share = share
        self._lookups = lookups
        self._patience = patience
        self._failed = 0
        self._first_error = ""
        self._answered_at = 0.0
        self._silent_since: float | None = None
        self._lock = threading.Lock()

    def spare(self, lookups: int) -> None:
        """That many products share their addresses with others.

        Raises:
            OctogenSnapshotError: Too many of the others failed.
        """
        with self._lock:
            self._lookups -= lookups
            self._check_share()

    def note_answer(self) -> None:
        """The service answered a lookup."""
        with self._lock:
            self._answered()

    def note_failure(self, error: Exception, began: float) -> None:
        """A lookup failed for good.

        Args:
            error: What it failed with.
            began: The monotonic time at which it began.

        Raises:
            OctogenSnapshotError: That was one too many.
        """
        with self._lock:
            self._failed += 1
            self._first_error = self._first_error or str(error)
            self._check_share()
            if isinstance(error, _SILENCE):
                self._check_silence(error, began)
            elif isinstance(error, OctogenAPIError):
                self._answered()

    def _answered(self) -> None:
        self._answered_at = time.monotonic()
        self._silent_since = None

    def _check_share(self) -> None:
        if self._failed > round(self._share * self._lookups, 6):
            raise OctogenSnapshotError(
                f"More than {100 * self._share:g} % of the lookups failed: {self._failed:,} of "
                f"{self._lookups:,}; the first: {self._first_error} Nothing was published, the "
                "snapshot before is untouched: run again, or raise failure_threshold."
            )

    def _check_silence(self, error: Exception, began: float) -> None:
        if self._silent_since is None:
            self._silent_since = max(began, self._answered_at)
        if time.monotonic() - self._silent_since >= self._patience:
            raise OctogenSnapshotError(
                f"The service answered no lookup for {self._patience:g} s, retries included; the "
                f"last: {error} Nothing was published, the snapshot before is untouched: run "
                "again when the service is back."
            )


def checked_share(failure_threshold: float) -> float:
    """The share of lookups that may fail.

    Raises:
        ValueError: It is no share.
    """
    if not 0 <= failure_threshold <= 1:
        raise ValueError(
            f"failure_threshold must be a share from 0 to 1 (0.05 is 5 %), not {failure_threshold}"
        )
    return failure_threshold


@dataclass(frozen=True, slots=True, eq=False)
class Lookups:
    """Some lookups that were asked for together.

    Attributes:
        urls: What is looked up.
        results: What became of those that are over, by URL.
    """

    urls: Sequence[str]
    results: dict[str, Lookup] = field(default_factory=dict)

    @property
    def are_over(self) -> bool:
        """Whether all of them are."""
        return len(self.results) == len(self.urls)


class LookupReader(ClientThreads):
    """Looks products up in threads.

    Args:
        connection: How to reach the service; `concurrency` lookups are made at a time.
        limit: When those that fail end them all.
    """

    def __init__(self, connection: Connection, limit: FailureLimit) -> None:
        super().__init__(connection, connection.concurrency, "octogen-lookup")
        self._limit = limit
        self._waiting: deque[tuple[str, Lookups]] = deque()

    def begin(self, urls: Sequence[str]) -> Lookups:
        """Have products looked up, after those that were asked for before.

        Args:
            urls: Each once.
        """
        lookups = Lookups(urls)
        with self._changed:
            self._waiting.extend((url, lookups) for url in urls)
            self._changed.notify_all()
        return lookups

    def wait(self, lookups: Lookups) -> bool:
        """Whether the lookups are over, now or within about a second.

        Raises:
            OctogenSnapshotError: Too many lookups failed.
            OctogenAPIError: The key is refused or the credit is spent.
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
            answer = await client.lookup_product(url, paced=True)
        except _ENDS_ALL:
            raise
        except (OctogenError, ValueError) as error:
            if isinstance(error, OctogenNotFoundError) and error.detail == "product_not_found":
                self._limit.note_answer()
                return Lookup(GONE, datetime.now(timezone.utc))
            self._limit.note_failure(error, began)
            return Lookup(FAILED, datetime.now(timezone.utc), error=str(error))
        self._limit.note_answer()
        return Lookup(FOUND, datetime.now(timezone.utc), answer)
