"""The budget of a run, which its steps and attempts share by the run's tags."""

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from decimal import Decimal

import dagster as dg

from octogen_dagster.frames.source import RunSpending
from octogen_dagster.snapshots.publication import PublishingStep, parent_of, retried_runs

_SPENT = "octogen/spent_usd."
"""The tags of a run with the dollars that each of its steps has spent: this, and the step."""
_AMOUNT = re.compile(r"\d{1,12}(\.\d{1,12})?")


@contextmanager
def shared_budget(
    step: PublishingStep, spending: RunSpending | None
) -> Iterator[Callable[[], None]]:
    """Count what other steps and attempts of a step's run have spent, and report the block's costs.

    They are reported without a budget, too, since a read that fails reports nothing else.

    The amounts are kept in tags of the run. A re-execution of the run inherits them, and counts
    them unless the run succeeded. Each step has a tag of its own, because two steps that end at the
    same time would overwrite a common one. The tag is written at the end of the block and when the
    block calls the function that it is given: so little is lost if the process is killed. Steps
    that work at the same time in other processes may each spend what was left when they began.
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
    spending.raise_to(sum(spent.values(), Decimal(0)))
    begun_at = reported = spending.spent_usd

    def report_cost() -> None:
        nonlocal reported
        if spending.spent_usd > reported:
            reported = spending.spent_usd
            own = in_tags.get(step.key, Decimal(0)) + reported - begun_at
            instance.add_run_tags(run_id, {tag: f"{own:f}"})

    try:
        yield report_cost
    finally:
        report_cost()


def _inherited(instance: dg.DagsterInstance, run_id: str) -> dict[str, Decimal]:
    """The amounts in a run's tags that are of a run that succeeded before it was executed again."""
    parents = [parent_of(run) for run in retried_runs(instance, run_id)]
    succeeded = instance.get_run_by_id(parents[-1]) if parents and parents[-1] else None
    return spent_usd(succeeded.tags) if succeeded else {}


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
