"""The budget of a run, which its steps and attempts share, and that of its backfill.

Runs know what others have spent by the tags of each.
"""

import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timezone
from decimal import Decimal
from typing import NamedTuple

import dagster as dg

from octogen_dagster.frames.source import RunSpending
from octogen_dagster.printable import usd
from octogen_dagster.snapshots.publication import PublishingStep, parent_of, retried_runs

_SPENT = "octogen/spent_usd."
"""The tags of a run with the dollars that each of its steps has spent: this, and the step."""
_BACKFILL_TAG = "dagster/backfill"
_ENDED_TAG = "octogen/backfill_ended"
"""The tag of a run with its `_Ended`, from which other runs of the backfill go on counting."""
_AMOUNT = re.compile(r"\d{1,12}(\.\d{1,12})?")
_MAX_SKEW_SECONDS = 60.0
"""By how much the clocks of machines differ at most."""
_LAST_RUNS = 20
"""The number of the last runs that ended which are searched for one that has counted."""
_UNDER_WAY = [dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING]
_OVER = [dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED]


@contextmanager
def shared_budget(
    step: PublishingStep, spending: RunSpending | None
) -> Iterator[Callable[[], None]]:
    """Count what other steps and attempts of a step's run have spent, and report the block's costs.

    They are reported without a budget, too, since a read that fails reports nothing else. If there
    is a budget of the run's backfill, what its other runs have spent is counted.

    The amounts are kept in tags of the run. A re-execution of the run inherits them, and counts
    them unless the run succeeded. Each step has a tag of its own, because two steps that end at the
    same time would overwrite a common one. The tag is written, and the backfill is counted again,
    at the end of the block and when the block calls the function that it is given: so little is
    lost if the process is killed. Steps and runs that work at the same time in other processes may
    each spend what was left when they counted last.
    """
    instance, run_id = step.instance, step.run_id
    if spending is None or instance is None or run_id is None:
        yield lambda: None
        return
    tag = f"{_SPENT}{step.key}"
    run = instance.get_run_by_id(run_id)
    inherited = _inherited(instance, run_id)
    in_tags = spent_usd(run.tags) if run else {}
    spent = {each: amount - inherited.get(each, 0) for each, amount in in_tags.items()}
    spent_before = sum(spent.values(), Decimal(0))
    spending.raise_to(spent_before)
    backfill: _BackfillBudget | None = None
    if run and spending.backfill_budget_usd and _BACKFILL_TAG in run.tags:
        backfill = _BackfillBudget(instance, run, spending)
        step.log.info(backfill.count(spent_before))
    begun_at = reported = spending.spent_usd

    def report_cost() -> None:
        nonlocal reported
        if spending.spent_usd > reported:
            reported = spending.spent_usd
            own = in_tags.get(step.key, Decimal(0)) + reported - begun_at
            instance.add_run_tags(run_id, {tag: f"{own:f}", **(backfill.tags if backfill else {})})
            if backfill:
                backfill.count(spent_before + reported - begun_at)

    try:
        yield report_cost
    finally:
        report_cost()


def _inherited(instance: dg.DagsterInstance, run_id: str) -> dict[str, Decimal]:
    """The amounts in a run's tags that are of a run that succeeded before it was executed again."""
    parents = [parent_of(run) for run in retried_runs(instance, run_id)]
    succeeded = instance.get_run_by_id(parents[-1]) if parents and parents[-1] else None
    return spent_usd(succeeded.tags) if succeeded else {}


class _Ended(NamedTuple):
    """The dollars that the runs of a backfill have spent that ended by a time."""

    at: float = 0.0
    usd: Decimal = Decimal(0)


class _BackfillBudget:
    """The budget of a backfill, for one of its runs.

    To add up all runs in each of them would cost more than to read small catalogs. What a run has
    spent changes no more once it has ended, so each run leaves a sum of those that have in a tag,
    and the next ones add only what was updated since.
    """

    def __init__(
        self, instance: dg.DagsterInstance, run: dg.DagsterRun, spending: RunSpending
    ) -> None:
        self._instance = instance
        self._run = run
        self._backfill = run.tags[_BACKFILL_TAG]
        self._spending = spending
        last = instance.get_run_records(
            self._runs(statuses=_OVER), limit=_LAST_RUNS, order_by="update_timestamp"
        )
        counted = (self._read(each.dagster_run.tags.get(_ENDED_TAG, "")) for each in last)
        self._ended = max(counted, default=_Ended())

    def count(self, own_usd: Decimal) -> str:
        """Count what the other runs have spent; return a line for the log."""
        since = self._ended.at
        # A run that ended later by another clock may still be updated: it is counted again.
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
        return dg.RunsFilter(tags={_BACKFILL_TAG: self._backfill}, **filters)  # type: ignore[arg-type]

    def _read(self, tag: str) -> _Ended:
        """Read the tag of another run, which it may have inherited from one of another backfill."""
        backfill, _, counted = tag.partition(" ")
        at, _, amount = counted.partition(" ")
        if backfill != self._backfill or not _AMOUNT.fullmatch(amount):
            return _Ended()
        return _Ended(float(at), Decimal(amount))

    def _own(self, run: dg.DagsterRun, records: Mapping[str, dg.RunRecord]) -> Decimal:
        """The dollars of a run alone."""
        parent_id = parent_of(run)
        record = records.get(parent_id or "")
        parent = record.dagster_run if record else None
        if parent_id and not parent:
            parent = self._instance.get_run_by_id(parent_id)
        return sum(own_spent_usd(run, parent).values(), Decimal(0))


def _ended_at(record: dg.RunRecord) -> float | None:
    """The time at which a run ended; None if it has not."""
    if record.dagster_run.status not in _OVER:
        return None
    return record.end_time or record.update_timestamp.timestamp()


def spent_usd(tags: Mapping[str, str]) -> dict[str, Decimal]:
    """The dollars that a run and those that it retries have spent, by step, by its tags."""
    return {
        tag.removeprefix(_SPENT): Decimal(amount)
        for tag, amount in tags.items()
        if tag.startswith(_SPENT) and _AMOUNT.fullmatch(amount)
    }


def own_spent_usd(run: dg.DagsterRun, parent: dg.DagsterRun | None) -> dict[str, Decimal]:
    """The dollars of a run alone, by step: it inherited those in the tags of the run before."""
    before = spent_usd(parent.tags) if parent else {}
    return {step: usd - before.get(step, 0) for step, usd in spent_usd(run.tags).items()}
