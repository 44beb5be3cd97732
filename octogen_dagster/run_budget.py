"""The budget of a run, which its steps and attempts share, and that of its backfill."""

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from decimal import Decimal
from typing import TYPE_CHECKING

import dagster as dg

if TYPE_CHECKING:
    from octogen_dagster.api.spending import Spending

SPENT_TAG = "octogen/spent_usd"
"""The tags of a run with the dollars that each of its steps has spent: this, a dot and the step."""
_AMOUNT = re.compile(r"\d{1,12}(\.\d{1,12})?")
_BACKFILL_TAG, _PARENT_TAG = "dagster/backfill", "dagster/parent_run_id"


@contextmanager
def shared_budget(
    instance: dg.DagsterInstance | None,
    run_id: str | None,
    step: str,
    spending: "Spending | None",
    log: dg.DagsterLogManager,
) -> Iterator[Callable[[], None]]:
    """Count what other steps and attempts of the run have spent, and tell them what the block does.

    If the budget is that of the run's backfill, what its other runs have spent is counted too.

    The amounts are kept in tags of the run, which a re-execution of the run inherits, and counts
    unless the run succeeded. There is one for each step, so that those that end at once replace no
    amount of another. They are written at the end
    and when the block calls what it is given, which a process that is killed afterwards has then
    told; then the backfill is counted again. Steps and runs that work at the same time in other
    processes may each spend what was left when they counted last. `instance` is None in a test
    without a run.
    """
    has_budget = spending and not spending.budget_usd is spending.backfill_budget_usd is None
    if spending is None or not has_budget or instance is None or run_id is None:
        yield lambda: None
        return
    tag = f"{SPENT_TAG}.{step}"
    run = instance.get_run_by_id(run_id)
    inherited = _inherited(instance, run_id)
    in_tags = _spent(run.tags) if run else {}
    spent = {each: usd - inherited.get(each, 0) for each, usd in in_tags.items()}
    spending.raise_to(sum(spent.values(), Decimal(0)))
    backfill = run.tags.get(_BACKFILL_TAG) if run and spending.backfill_budget_usd else None
    if run and backfill:
        log.info(_count_backfill(instance, backfill, run, spending))
    begun_at = told = spending.spent_usd

    def tell() -> None:
        nonlocal told
        if spending.spent_usd > told:
            told = spending.spent_usd
            own = in_tags.get(tag, Decimal(0)) + told - begun_at
            instance.add_run_tags(run_id, {tag: f"{own:f}"})
            if run and backfill:
                _count_backfill(instance, backfill, run, spending)

    try:
        yield tell
    finally:
        tell()


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
    return run.parent_run_id or run.tags.get(_PARENT_TAG)


def _inherited(instance: dg.DagsterInstance, run_id: str) -> dict[str, Decimal]:
    """The amounts in a run's tags that are of a run that succeeded before it was executed again."""
    parents = [_parent(run) for run in retried_runs(instance, run_id)]
    succeeded = instance.get_run_by_id(parents[-1]) if parents and parents[-1] else None
    return _spent(succeeded.tags) if succeeded else {}


def _count_backfill(
    instance: dg.DagsterInstance, backfill: str, run: dg.DagsterRun, spending: "Spending"
) -> str:
    """Count what the other runs of a backfill have spent; return a line for the log."""
    from octogen_dagster.api.spending import usd

    runs = instance.get_runs(dg.RunsFilter.for_backfill(backfill))
    in_tags = {each.run_id: sum(_spent(each.tags).values(), Decimal(0)) for each in runs}
    # The tags of a retry also have what the run spent that it retries.
    counted_twice = sum(in_tags.get(each.tags.get(_PARENT_TAG, ""), Decimal(0)) for each in runs)
    spent = sum(in_tags.values(), Decimal(0)) - counted_twice
    spending.count_other_runs(spent - in_tags[run.run_id])
    budget = spending.backfill_budget_usd or 0
    line = f"Backfill {backfill} has spent {usd(spent)} of its budget of {usd(budget)}."
    started = [dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING]
    others = sum(each.status in started and each.run_id != run.run_id for each in runs)
    if others:
        most = usd(others * min(budget, spending.budget_usd or budget))
        line += (
            f" Other runs of it are under way: {others}. What they spend during this read is not "
            f"counted, so the backfill may exceed its budget, by at most {most}."
        )
    return line


def _spent(tags: Mapping[str, str]) -> dict[str, Decimal]:
    """The dollars that a run's steps have spent, by its tags."""
    return {
        tag: Decimal(amount)
        for tag, amount in tags.items()
        if tag.startswith(f"{SPENT_TAG}.") and _AMOUNT.fullmatch(amount)
    }
