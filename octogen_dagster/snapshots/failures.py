"""Collects a run's failed partitions and raises the error that fails the run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import dagster as dg

from octogen_dagster.errors import CONCERNS_ALL, OctogenError
from octogen_dagster.snapshots.publication import PublishingStep

_MAX_NAMED = 20
_MAX_CONSECUTIVE = 16
"""Number of consecutive transient failures after which a run stops reading partitions."""
_FAILED, _IS_TRANSIENT = "octogen/failed", "octogen/may_pass"
"""Observation metadata for a failed partition: the error, and True if a retry could succeed."""


class Failures:
    """A run's failed partitions and their error messages.

    `end` explains why the remaining partitions are not tried, for example because an error affects
    all of them. A retry of the step skips partitions that failed permanently. `tried_before`
    contains the partitions that failed in an earlier attempt, or in a run that this run retries.
    """

    def __init__(self, step: PublishingStep) -> None:
        self.tried_before: set[str] = set()
        self._step = step
        self._asset = step.asset
        self._texts: dict[str, str] = {}
        self._observed: list[dg.AssetObservation] = []
        self._unchecked: dict[str, str] = {}
        self._metadata: Mapping[str, Any] = {}
        self._in_a_row = 0
        self._may_pass = self._concerns_all = False
        self.end = ""
        for entry in step.logged_before(dg.DagsterEventType.ASSET_OBSERVATION):
            event = entry.asset_observation
            text = event.metadata.get(_FAILED) if event and event.asset_key == self._asset else None
            if event is None or event.partition is None or text is None:
                continue
            self.tried_before.add(event.partition)
            # A re-execution tries permanent failures again, because the cause might be fixed.
            if entry.run_id == step.run_id and not event.metadata[_IS_TRANSIENT].value:
                self._texts[event.partition] = str(text.value)

    def observations(self) -> Iterator[dg.AssetObservation]:
        """Yield observations of the failures. A retry of the step or run reads the observations."""
        yield from self._observed

    def add(self, partition: str, error: Exception) -> None:
        self._texts[partition] = text = self._logged(partition, error)
        is_lasting = isinstance(error, dg.Failure) and not error.allow_retries
        self._observed.append(
            dg.AssetObservation(
                self._asset,
                partition=partition,
                metadata={_FAILED: text, _IS_TRANSIENT: not is_lasting},
            )
        )
        if isinstance(error, dg.Failure) and is_lasting:
            self._in_a_row = 0
            if isinstance(error.__cause__, CONCERNS_ALL):
                self._concerns_all = True
                self._metadata = error.metadata
                self.end = "they would fail with the same error"
            return
        self._may_pass = True
        self._in_a_row += 1
        if self._in_a_row >= _MAX_CONSECUTIVE and not self.end:
            self.end = f"{self._in_a_row} partitions in a row failed with transient errors"

    def add_unchecked(self, partition: str, error: Exception) -> None:
        """Record that the checks for a published partition raised an error."""
        self._unchecked[partition] = self._logged(partition, error)
        self._may_pass = True

    def passed(self) -> None:
        """Reset the number of consecutive failures after a partition was published."""
        self._in_a_row = 0

    def _logged(self, partition: str, error: Exception) -> str:
        text = (isinstance(error, dg.Failure) and error.description) or str(error)
        is_expected = isinstance(error, OctogenError | dg.Failure)
        self._step.log.error(
            f"Partition {partition!r}: {text}", exc_info=None if is_expected else error
        )
        return text if is_expected else f"{type(error).__name__}: {text}"

    @property
    def _may_be_retried(self) -> bool:
        return self._may_pass and not self._concerns_all

    def __contains__(self, partition: str) -> bool:
        return partition in self._texts

    def __bool__(self) -> bool:
        return bool(self._texts or self._unchecked)

    def raise_any(self, partitions: int, untried: Sequence[str] = ()) -> None:
        """Fail the step if any partition failed. Allow a retry after a transient error."""
        if not self:
            return
        asset = self._asset.to_user_string()
        lines = []
        if self._texts:
            others = partitions - len(self._texts) - len(untried)
            lines = [
                f"{len(self._texts):,} of {partitions:,} partitions of {asset} failed. "
                f"{f'{len(untried):,} were not read, because {self.end}. ' if untried else ''}"
                f"{f'The other {others:,} are published and reported. ' if others else ''}"
                "A retry or re-execution of this run reads only the failed"
                f"{' and unread' if untried else ''} partitions.",
                *first_lines([f"{key!r}: {text}" for key, text in self._texts.items()]),
            ]
        if untried:
            lines += ["Not read:", *first_lines([repr(key) for key in untried])]
        if self._unchecked:
            lines += [
                f"The checks for {len(self._unchecked):,} of {partitions:,} partitions of {asset} "
                "could not be evaluated. The snapshots are published and reported. A retry or "
                "re-execution of this run evaluates the checks.",
                *first_lines([f"{key!r}: {text}" for key, text in self._unchecked.items()]),
            ]
        raise dg.Failure(
            "\n".join(lines), metadata=self._metadata, allow_retries=self._may_be_retried
        )


def first_lines(lines: Sequence[str]) -> list[str]:
    """Return the first 20 lines, followed by the number of omitted lines."""
    more = len(lines) - _MAX_NAMED
    return [*lines[:_MAX_NAMED], *([f"and {more:,} more."] if more > 0 else [])]
