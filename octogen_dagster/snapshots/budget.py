"""Shares a run's budget between its steps and attempts, using the run's tags."""

from __future__ import annotations

import contextlib
import re
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal

import dagster as dg

from octogen_dagster.background import submit, wait_interruptibly
from octogen_dagster.frames.source import RunSpending
from octogen_dagster.snapshots.publication import PublishingStep, parent_of, retried_runs

_SPENT = "octogen/spent_usd."
"""Tag prefix for the amount that each step in a run has spent."""
_POSSIBLY_CHARGED = "octogen/possibly_charged_usd."
"""Tag prefix for additional amounts that might be charged."""
_AMOUNT = re.compile(r"\d{1,12}(\.\d{1,12})?")
_MAX_REQUESTS_UNWRITTEN = 30
_MAX_SECONDS_UNWRITTEN = 10.0
_POLL_SECONDS = 0.2


@dataclass(frozen=True)
class Spent:
    """The charged amount, and an additional amount that might be charged, in US dollars."""

    usd: Decimal = Decimal(0)
    possibly_usd: Decimal = Decimal(0)

    def __add__(self, other: Spent) -> Spent:
        return Spent(self.usd + other.usd, self.possibly_usd + other.possibly_usd)

    def __sub__(self, other: Spent) -> Spent:
        """Return the difference, or zero if it is negative."""
        usd, possibly_usd = self.usd - other.usd, self.possibly_usd - other.possibly_usd
        return Spent(max(usd, Decimal(0)), max(possibly_usd, Decimal(0)))


_NOTHING = Spent()


@contextlib.contextmanager
def shared_budget(step: PublishingStep, spending: RunSpending | None) -> Iterator[None]:
    """Share a budget across a run's steps and attempts. Record the costs in the `with` block.

    Costs are recorded even if no budget is set, because a failed read does not report them anywhere
    else.

    The amounts are stored in the run's tags. A re-execution inherits these tags, and counts the
    amounts unless the earlier run succeeded. Each step has separate tags, because concurrent steps
    would overwrite each other's amounts. Tags are written every ten seconds, every thirty requests
    and at the end of the block, so that little is lost if the process is killed. Concurrent steps
    in separate processes can each spend the amount that was left when they started.
    """
    instance, run_id = step.instance, step.run_id
    if spending is None or instance is None or run_id is None:
        yield
        return
    run = instance.get_run_by_id(run_id)
    in_tags = spent(run.tags) if run else {}
    inherited = _inherited(instance, run_id)
    others = (amounts - inherited.get(each, _NOTHING) for each, amounts in in_tags.items())
    total = sum(others, _NOTHING)
    spending.raise_to(total.usd, total.possibly_usd)
    begun_at = written = _amounts(spending)

    def write() -> None:
        nonlocal written
        if (now := _amounts(spending)) != written:
            own = in_tags.get(step.key, _NOTHING) + now - begun_at
            instance.add_run_tags(run_id, _tags(step.key, own))
            written = now

    ended = threading.Event()

    def write_now_and_then() -> None:
        requests, at = spending.requests, time.monotonic()
        while not ended.wait(_POLL_SECONDS):
            is_due = time.monotonic() - at >= _MAX_SECONDS_UNWRITTEN
            if is_due or spending.requests - requests >= _MAX_REQUESTS_UNWRITTEN:
                requests, at = spending.requests, time.monotonic()
                with contextlib.suppress(Exception):  # if the error lasts, the final write raises
                    write()

    # An in-memory instance is lost when the process ends, and is not thread-safe.
    thread = None if instance.is_ephemeral else submit(write_now_and_then, "octogen-costs")
    try:
        yield
    finally:
        ended.set()
        if thread:
            wait_interruptibly(thread)
        write()


def _amounts(spending: RunSpending) -> Spent:
    return Spent(spending.spent_usd, spending.possibly_charged_usd)


def _inherited(instance: dg.DagsterInstance, run_id: str) -> dict[str, Spent]:
    """Return the amounts that a run inherited from an earlier, successful run."""
    parents = [parent_of(run) for run in retried_runs(instance, run_id)]
    succeeded = instance.get_run_by_id(parents[-1]) if parents and parents[-1] else None
    return spent(succeeded.tags) if succeeded else {}


def spent(tags: Mapping[str, str]) -> dict[str, Spent]:
    """Return each step's spending from a run's tags, including inherited amounts."""
    steps = {
        tag.removeprefix(prefix): None
        for tag in tags
        for prefix in (_SPENT, _POSSIBLY_CHARGED)
        if tag.startswith(prefix)
    }
    found = {
        step: Spent(*(_amount(tags.get(name + step, "")) for name in (_SPENT, _POSSIBLY_CHARGED)))
        for step in steps
    }
    return {step: amounts for step, amounts in found.items() if amounts != _NOTHING}


def own_spent(run: dg.DagsterRun, parent: dg.DagsterRun | None) -> dict[str, Spent]:
    """Return each step's spending in a run, without inherited amounts."""
    before = spent(parent.tags) if parent else {}
    return {step: now - before.get(step, _NOTHING) for step, now in spent(run.tags).items()}


def _tags(step: str, amounts: Spent) -> dict[str, str]:
    tags = {f"{_SPENT}{step}": f"{amounts.usd:f}"}
    if amounts.possibly_usd:
        tags[f"{_POSSIBLY_CHARGED}{step}"] = f"{amounts.possibly_usd:f}"
    return tags


def _amount(text: str) -> Decimal:
    return Decimal(text if _AMOUNT.fullmatch(text) else 0)
