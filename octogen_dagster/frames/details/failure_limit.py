"""FailureLimit: ends all lookups when too many fail."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from octogen_dagster.errors import (
    OctogenAPIError,
    OctogenConnectionError,
    OctogenRateLimitError,
    OctogenServerError,
    OctogenShopError,
    OctogenSnapshotError,
)

if TYPE_CHECKING:
    from collections.abc import Callable

_SILENCE = (OctogenConnectionError, OctogenServerError, OctogenRateLimitError)


class FailureLimit:
    """Raises when too many lookups failed, or when the service has answered none for too long.

    Threads may share an instance.

    Args:
        share: The share of the lookups, 0 to 1, that may fail.
        total: The largest possible number of lookups. Rows that are carried over count too, so that
            a product whose lookup always fails is one of all products, not of the few that changed.
        patience_seconds: Seconds for which the service may answer no lookup.
        clock: Returns monotonic seconds.
    """

    def __init__(
        self,
        share: float,
        total: int,
        patience_seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._share = share
        self._total = total
        self._patience_seconds = patience_seconds
        self._clock = clock
        self._failed = 0
        self._first_error = ""
        self._answered_at = 0.0
        self._silent_since: float | None = None
        self._lock = threading.Lock()

    def reduce_total(self, lookups: int) -> None:
        """Subtract lookups that are not needed because products share an address.

        Raises:
            OctogenSnapshotError: More than the share of the remaining lookups failed.
        """
        with self._lock:
            self._total -= lookups
            self._check_share()

    def note_answer(self) -> None:
        """Record that the service answered a lookup."""
        with self._lock:
            self._answered()

    def note_failure(self, error: Exception, began: float) -> None:
        """Record that a lookup failed, retries included.

        Args:
            error: The error of its last attempt.
            began: When the lookup began, in monotonic seconds.

        Raises:
            OctogenSnapshotError: Too many lookups failed, or the service was silent for too long.
        """
        with self._lock:
            self._failed += 1
            self._first_error = self._first_error or str(error)
            self._check_share()
            if isinstance(error, _SILENCE) and not isinstance(error, OctogenShopError):
                self._check_silence(error, began)
            elif isinstance(error, OctogenAPIError):
                self._answered()

    def _answered(self) -> None:
        self._answered_at = self._clock()
        self._silent_since = None

    def _check_share(self) -> None:
        if self._failed > round(self._share * self._total, 6):
            raise OctogenSnapshotError(
                f"More than {100 * self._share:g} % of the lookups failed: {self._failed:,} of "
                f"{self._total:,}; the first: {self._first_error} Nothing was published, the "
                "snapshot before is untouched: run again, or raise failure_threshold."
            )

    def _check_silence(self, error: Exception, began: float) -> None:
        if self._silent_since is None:
            self._silent_since = max(began, self._answered_at)
        if self._clock() - self._silent_since >= self._patience_seconds:
            raise OctogenSnapshotError(
                f"The service answered no lookup for {self._patience_seconds:g} s, retries "
                f"included; the last: {error} Nothing was published, the snapshot before is "
                "untouched: run again when the service is back."
            )
