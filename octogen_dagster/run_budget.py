"""The budget of a run, which its steps and attempts share, and that of its backfill."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from decimal import Decimal
from typing import TYPE_CHECKING

import dagster as dg

from octogen_dagster.backfill_budget import (
    BACKFILL_TAG,
    PARENT_TAG,
    SPENT_TAG,
    BackfillBudget,
    spent_usd,
)

if TYPE_CHECKING:
    from octogen_dagster.api.spending import Spending


@contextmanager
def shared_budget(
    instance: dg.DagsterInstance | None,
    run_id: str | None,
    step: str,
    spending: "Spending | None",
    log: dg.DagsterLogManager,
) -> Iterator[Callable[[], None]]:
    """Count what other steps and attempts of the run have spent, and report the block's costs.

    If the budget is that of the run's backfill, what its other runs have spent is counted too.

    The amounts are kept in tags of the run, which a re-execution of the run inherits, and counts
    unless the run succeeded. There is one for each step, so that those that end at once replace no
    amount of another. They are written at the end and when the block calls what it is given, which
    a process that is killed afterwards has then reported; then the backfill is counted again. Steps
    and runs that work at the same time in other processes may each spend what was left when they
    counted last. `instance` is None in a test without a run.
    """
    has_budget = spending and not spending.budget_usd is spending.backfill_budget_usd is None
    if spending is None or not has_budget or instance is None or run_id is None:
        yield lambda: None
        return
    tag = f"{SPENT_TAG}.{step}"
    run = instance.get_run_by_id(run_id)
    inherited = _inherited(instance, run_id)
    in_tags = spent_usd(run.tags) if run else {}
    spent = {each: usd - inherited.get(each, 0) for each, usd in in_tags.items()}
    spent_before = sum(spent.values(), Decimal(0))
    spending.raise_to(spent_before)
    backfill: BackfillBudget | None = None
    if run and spending.backfill_budget_usd and BACKFILL_TAG in run.tags:
        backfill = BackfillBudget(instance, run, spending)
        log.info(backfill.count(spent_before))
    begun_at = reported = spending.spent_usd

    def report_cost() -> None:
        nonlocal reported
        if spending.spent_usd > reported:
            reported = spending.spent_usd
            own = in_tags.get(tag, Decimal(0)) + reported - begun_at
            instance.add_run_tags(run_id, {tag: f"{own:f}", **(backfill.tags if backfill else {})})
            if backfill:
                backfill.count(spent_before + reported - begun_at)

    try:
        yield report_cost
    finally:
        report_cost()


def retried_runs(instance: dg.DagsterInstance, run_id: str | None) -> Iterator[dg.DagsterRun]:
    """Yield a run and those that it retries, the latest first.

    A run that succeeded is not retried: whoever executes it again wants it all anew.
    """
    while run_id:
        run = instance.get_run_by_id(run_id)
        if run is None or run.status is dg.DagsterRunStatus.SUCCESS:
            return
        yield run
        run_id = _parent(run)


def _parent(run: dg.DagsterRun) -> str | None:
    return run.parent_run_id or run.tags.get(PARENT_TAG)


def _inherited(instance: dg.DagsterInstance, run_id: str) -> dict[str, Decimal]:
    """The amounts in a run's tags that are of a run that succeeded before it was executed again."""
    parents = [_parent(run) for run in retried_runs(instance, run_id)]
    succeeded = instance.get_run_by_id(parents[-1]) if parents and parents[-1] else None
    return spent_usd(succeeded.tags) if succeeded else {}
