"""The budget of a run, which its steps share although each may be a process of its own."""

from __future__ import annotations

import re
from contextlib import contextmanager
from decimal import Decimal
from typing import TYPE_CHECKING

import dagster as dg

if TYPE_CHECKING:
    from collections.abc import Iterator

    from octogen_dagster.api.spending import Spending

SPENT_TAG = "octogen/spent_usd"
"""The tag of a run with the dollars that its finished steps have spent."""

_AMOUNT = re.compile(r"\d{1,12}(\.\d{1,12})?")


@contextmanager
def shared_budget(context: dg.OutputContext, spending: Spending | None) -> Iterator[None]:
    """Count what other steps and attempts of the run have spent, and tell them what the block did.

    The amount is kept in a tag of the run, which a re-execution of the run inherits. Steps that
    work at the same time in other processes may each spend what was left when they began.

    Args:
        context: The context of the step's output.
        spending: What the step counts its costs in; without a budget nothing is done.
    """
    if spending is None or spending.budget_usd is None:
        yield
        return
    try:
        tag = _SpentTag(context.step_context.instance, context.run_id)
    except dg.DagsterInvariantViolationError:  # a context made for a test
        yield
        return
    spending.raise_to(tag.read())
    begun_at = spending.spent_usd
    try:
        yield
    finally:
        tag.add(spending.spent_usd - begun_at)


class _SpentTag:
    """The tag of one run."""

    def __init__(self, instance: dg.DagsterInstance, run_id: str) -> None:
        self._instance = instance
        self._run_id = run_id

    def read(self) -> Decimal:
        run = self._instance.get_run_by_id(self._run_id)
        amount = run.tags.get(SPENT_TAG, "") if run else ""
        return Decimal(amount) if _AMOUNT.fullmatch(amount) else Decimal(0)

    def add(self, amount: Decimal) -> None:
        self._instance.add_run_tags(self._run_id, {SPENT_TAG: f"{self.read() + amount:f}"})
