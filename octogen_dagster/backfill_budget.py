"""The budget of a backfill: what its runs have spent together, by the tags of each."""

import re
import time
from collections.abc import Mapping
from datetime import datetime, timezone
from decimal import Decimal
from typing import TYPE_CHECKING, NamedTuple

import dagster as dg

if TYPE_CHECKING:
    from octogen_dagster.api.spending import Spending

SPENT_TAG = "octogen/spent_usd"
"""The tags of a run with the dollars that each of its steps has spent: this, a dot and the step."""
BACKFILL_TAG, PARENT_TAG = "dagster/backfill", "dagster/parent_run_id"
_ENDED_TAG = "octogen/backfill_ended"
"""The tag of a run with its `_Ended`, from which other runs of the backfill go on counting."""
_AMOUNT = re.compile(r"\d{1,12}(\.\d{1,12})?")
_MAX_SKEW_SECONDS = 60.0
"""By how much the clocks of machines differ at most."""
_LAST_RUNS = 20
"""The number of the last runs that ended which are searched for one that has counted."""
_UNDER_WAY = [dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING]
_OVER = [dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED]


class _Ended(NamedTuple):
    """The dollars that the runs of a backfill have spent that ended by a time."""

    at: float = 0.0
    usd: Decimal = Decimal(0)


class BackfillBudget:
    """The budget of a backfill, for one of its runs.

    To add up all runs in each of them would cost more than to read small catalogs. What a run has
    spent changes no more once it has ended, so each run leaves a sum of those that have in a tag,
    and the next ones add only what was updated since.
    """

    def __init__(
        self, instance: dg.DagsterInstance, run: dg.DagsterRun, spending: "Spending"
    ) -> None:
        self._instance = instance
        self._run = run
        self._backfill = run.tags[BACKFILL_TAG]
        self._spending = spending
        last = instance.get_run_records(
            self._runs(statuses=_OVER), limit=_LAST_RUNS, order_by="update_timestamp"
        )
        counted = (self._read(each.dagster_run.tags.get(_ENDED_TAG, "")) for each in last)
        self._ended = max(counted, default=_Ended())

    def count(self, own_usd: Decimal) -> str:
        """Count what the other runs have spent; return a line for the log.

        `own_usd` is what the run counts as spent in its tags, that of runs which it retries too.
        """
        from octogen_dagster.api.spending import usd

        since = self._ended.at
        ended_by = time.time() - _MAX_SKEW_SECONDS
        updated_after = datetime.fromtimestamp(since, timezone.utc) if since else None
        found = [
            *self._instance.get_run_records(self._runs(updated_after=updated_after)),
            *self._instance.get_run_records(self._runs(statuses=_UNDER_WAY)),
        ]
        records = {each.dagster_run.run_id: each for each in found}
        spent = ended = self._ended.usd
        for record in records.values():
            ended_at = _ended_at(record)
            if ended_at is not None and ended_at <= since:
                continue
            own = self._own(record.dagster_run, records)
            spent += own
            if ended_at is not None and ended_at <= ended_by:
                ended += own
        self._spending.count_other_runs(spent - own_usd)
        if ended_by > since:
            self._ended = _Ended(ended_by, ended)
        budget = self._spending.backfill_budget_usd or 0
        line = f"Backfill {self._backfill} has spent {usd(spent)} of its budget of {usd(budget)}."
        others = sum(
            each.dagster_run.status in _UNDER_WAY and run_id != self._run.run_id
            for run_id, each in records.items()
        )
        if others:
            most = usd(others * min(budget, self._spending.budget_usd or budget))
            line += (
                f" Other runs of it are under way: {others}. What they spend during this read is "
                f"not counted, so the backfill may exceed its budget, by at most {most}."
            )
        return line

    @property
    def tags(self) -> dict[str, str]:
        """The sum that the next runs go on from, as a tag of this one."""
        return {_ENDED_TAG: f"{self._backfill} {self._ended.at} {self._ended.usd:f}"}

    def _runs(self, **filters: object) -> dg.RunsFilter:
        return dg.RunsFilter(tags={BACKFILL_TAG: self._backfill}, **filters)  # type: ignore[arg-type]

    def _read(self, tag: str) -> _Ended:
        """Read the tag of another run, which it may have inherited from one of another backfill."""
        backfill, _, counted = tag.partition(" ")
        at, _, amount = counted.partition(" ")
        if backfill != self._backfill or not _AMOUNT.fullmatch(amount):
            return _Ended()
        return _Ended(float(at), Decimal(amount))

    def _own(self, run: dg.DagsterRun, records: Mapping[str, dg.RunRecord]) -> Decimal:
        """The dollars of a run alone: the tags of a retry also have what the run before spent."""
        own = sum(spent_usd(run.tags).values(), Decimal(0))
        parent_id = run.tags.get(PARENT_TAG)
        if parent_id is None:
            return own
        record = records.get(parent_id)
        parent = record.dagster_run if record else self._instance.get_run_by_id(parent_id)
        return own - sum(spent_usd(parent.tags).values(), Decimal(0)) if parent else own


def _ended_at(record: dg.RunRecord) -> float | None:
    """The time at which a run ended; None if it has not."""
    if record.dagster_run.status not in _OVER:
        return None
    return record.end_time or record.update_timestamp.timestamp()


def spent_usd(tags: Mapping[str, str]) -> dict[str, Decimal]:
    """The dollars that a run's steps have spent, by its tags."""
    return {
        tag: Decimal(amount)
        for tag, amount in tags.items()
        if tag.startswith(f"{SPENT_TAG}.") and _AMOUNT.fullmatch(amount)
    }
