"""Each version of each catalog gets one successful run, whatever happens to ticks, runs and clocks.

A small Dagster plays the database and the daemon, which goes on with an interrupted tick or not and
forgets old runs. `plan` decides, and has no other memory.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from octogen_dagster.ticks import MAX_RUNS, MEMORY_SECONDS, Plan, Tries, Wanted, plan

MINUTE, HOUR = 60.0, 3600.0
MOST_TRIES = 30
"""Of a catalog that always fails: 8 in 17 hours, and one after each jump of the clock."""
Planner = Callable[..., Plan]


@dataclass
class Run:
    """A run; `generation` is that of the catalog in the list that the run read."""

    key: str
    request: str
    created: float
    ends_at: float
    generation: int = -1
    is_finished: bool = False


@dataclass
class World:
    """Catalogs that are indexed again, and Dagster with a sensor."""

    catalogs: int
    seed: int
    planner: Planner = plan
    broken: int = 0
    calm: bool = False
    most_tries: int = 0
    now: float = 1_000_000.0
    done: dict[str, str] = field(default_factory=dict)
    runs: list[Run] = field(default_factory=list)
    launched: Counter[str] = field(default_factory=Counter)
    reads: Counter[tuple[str, int]] = field(default_factory=Counter)
    unlaunched: list[Wanted] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.stamps = {f"shop-{number}": [self.now] for number in range(self.catalogs)}
        self.fails = set(list(self.stamps)[: self.broken])

    def version(self, key: str) -> str:
        return f"{self.stamps[key][-1]:.0f}"

    def happens(self, share: float) -> bool:
        return not self.calm and self.random.random() < share

    def pass_time(self, seconds: float) -> None:
        """Let some catalogs be indexed again, and runs begin and end."""
        self.now += seconds
        for key in self.random.sample(list(self.stamps), self.catalogs // 100):
            if self.happens(0.5):
                stamps = self.stamps[key]
                stamps.append(stamps[-2] if len(stamps) > 1 and self.happens(0.1) else self.now)
        for run in self.runs:
            if run.is_finished:
                continue
            if run.generation < 0:  # it lists the catalogs when it begins
                run.generation = len(self.stamps[run.key]) - 1
            if run.ends_at <= self.now or run.ends_at > self.now + 12 * HOUR:
                run.is_finished = True
                if run.key not in self.fails and not self.happens(0.3):
                    stamp = self.stamps[run.key][run.generation]
                    self.done[run.key] = f"{stamp:.0f}"
                    self.reads[run.key, run.generation] += 1

    def tries(self, requests: Sequence[str]) -> Mapping[str, Tries]:
        wanted, found = set(requests), dict[str, Tries]()
        for run in self.runs:
            if run.request in wanted and run.created > self.now - MEMORY_SECONDS:
                before = found.get(run.request)
                found[run.request] = Tries(before.runs + 1 if before else 1, run.created)
        return found

    def launch(self, requests: Sequence[Wanted]) -> None:
        for number, request in enumerate(requests):
            if self.happens(0.1 / MAX_RUNS):  # the daemon dies; it may go on with the tick
                self.unlaunched = [] if self.happens(0.5) else list(requests[number:])
                return
            self.launched[request.request] += 1
            ends_at = self.now + self.random.expovariate(1 / (10 * MINUTE))
            self.runs.append(Run(request.key, request.request, self.now, ends_at))

    def tick(self, interval: float = 5 * MINUTE) -> Plan | None:
        self.pass_time(interval)
        if self.happens(0.05):
            self.now += self.random.choice([-3, 2]) * HOUR
        resumed, self.unlaunched = self.unlaunched, []
        self.launch(resumed)
        if self.unlaunched or self.happens(0.15):  # a tick that is lost
            return None
        if self.happens(0.05):
            self.delete_runs()
        busy = {run.key for run in self.runs if not run.is_finished}
        self.pass_time(5.0)
        wanted = [Wanted(key, self.version(key), stamps[-1]) for key, stamps in self.stamps.items()]
        self.pass_time(5.0)
        planned = self.planner(wanted, dict(self.done), self.tries, busy, self.now)
        self.launch(planned.requests)
        return planned

    def delete_runs(self) -> None:
        """Forget finished runs, as Dagster's retention or an operator does."""
        self.runs = [run for run in self.runs if not run.is_finished or self.random.random() < 0.9]

    def settle(self) -> None:
        """Let all be quiet for long enough that each catalog is read."""
        self.calm = True
        for _ in range(20 + self.catalogs // MAX_RUNS):
            self.tick(7 * HOUR)

    def unread(self) -> set[str]:
        """The catalogs that work and whose last version has no snapshot."""
        return {key for key in self.stamps if self.done.get(key) != self.version(key)} - self.fails

    def read_twice(self) -> int:
        return sum(reads > 1 for reads in self.reads.values())


def simulated(catalogs: int, ticks: int, planner: Planner = plan, seed: int = 7) -> World:
    world = World(catalogs, seed, planner, broken=70)
    for _ in range(ticks):
        world.tick()
    world.most_tries = max(world.launched.values())
    world.settle()
    return world


@pytest.mark.parametrize(
    "seed", [7, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(8, 28))]
)
def test_each_version_of_each_catalog_gets_one_successful_run(seed: int) -> None:
    world = simulated(1000, 200, seed=seed)
    print(
        f"{len(world.reads):,} versions read by {world.launched.total():,} runs, "
        f"at most {world.most_tries} of one version"
    )
    assert world.unread() == set()
    assert world.read_twice() == 0
    assert world.most_tries < MOST_TRIES
    assert len(world.reads) > 1000


def test_a_wait_stays_the_longest_after_any_number_of_tries() -> None:
    assert Tries(5_000, 0.0).are_recent(6 * HOUR - 1)
    assert not Tries(5_000, 0.0).are_recent(6 * HOUR)


def without_busy(wanted: Any, done: Any, tried: Any, busy: Any, now: float) -> Plan:
    return plan(wanted, done, tried, (), now)


def without_tries(wanted: Any, done: Any, tried: Any, busy: Any, now: float) -> Plan:
    return plan(wanted, done, lambda _: {}, busy, now)


def cap_before_waits(wanted: Any, done: Any, tried: Any, busy: Any, now: float) -> Plan:
    keys = {each.key for each in plan(wanted, done, lambda _: {}, busy, now).requests}
    return plan([each for each in wanted if each.key in keys], done, tried, busy, now)


def any_version_is_enough(wanted: Any, done: Any, tried: Any, busy: Any, now: float) -> Plan:
    return plan([each._replace(version="") for each in wanted], done, tried, busy, now)


@pytest.mark.parametrize(
    "mutant",
    [
        without_busy,
        without_tries,
        cap_before_waits,
        any_version_is_enough,
    ],
)
def test_a_plan_that_is_broken_is_noticed(mutant: Planner) -> None:
    world = simulated(1000, 200, mutant)
    assert world.unread() or world.read_twice() or world.most_tries >= MOST_TRIES
