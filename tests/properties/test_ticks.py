"""Each version of each catalog gets one successful run, whatever happens to ticks, runs and clocks.

A small Dagster plays the database and the daemon, which goes on with an interrupted tick or not and
forgets old runs. Its runs have a catalog or a range of them, of which some fail and others do not.
`plan` decides, and has no other memory.
"""

from __future__ import annotations

import itertools
import math
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from octogen_dagster.assets.ticks import (
    MAX_RUNS,
    KeyOrder,
    RequestedRun,
    TickPlan,
    Tries,
    Wanted,
    count_tries,
    plan,
)

MINUTE, HOUR = 60.0, 3600.0
MOST_TRIES = 30
"""Of a catalog that always fails: 8 in 17 hours, and one after each jump of the clock."""
Planner = Callable[..., TickPlan]


@dataclass
class Running:
    """A run; `generations` are those of its catalogs in the list that the run read."""

    requested: RequestedRun
    reading: dict[str, float]
    """When the read of each catalog ends, unless the run dies before."""
    dies_at: float
    generations: dict[str, int] = field(default_factory=dict)


@dataclass
class World:
    """Catalogs that are indexed again, and Dagster with a sensor."""

    catalogs: int
    seed: int
    planner: Planner = plan
    most: int = 1
    broken: int = 0
    calm: bool = False
    most_tries: int = 0
    now: float = 1_000_000.0
    known: list[str] = field(default_factory=list)
    done: dict[str, str] = field(default_factory=dict)
    runs: list[Running] = field(default_factory=list)
    launched: Counter[str] = field(default_factory=Counter)
    reads: Counter[tuple[str, int]] = field(default_factory=Counter)
    unlaunched: list[list[Wanted]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.stamps = {f"shop-{number}": [self.now] for number in range(self.catalogs)}
        self.fails = set(self.random.sample(list(self.stamps), self.broken))

    def version(self, key: str) -> str:
        return f"{self.stamps[key][-1]:.0f}"

    def happens(self, share: float) -> bool:
        return not self.calm and self.random.random() < share

    def is_over(self, at: float) -> bool:
        return at <= self.now or at > self.now + 12 * HOUR  # the clock jumped back

    def pass_time(self, seconds: float) -> None:
        """Let some catalogs be indexed again, and runs begin and end."""
        self.now += seconds
        for key in self.random.sample(list(self.stamps), self.catalogs // 100):
            if self.happens(0.5):
                stamps = self.stamps[key]
                stamps.append(stamps[-2] if len(stamps) > 1 and self.happens(0.1) else self.now)
        for run in self.runs:
            if not run.generations:  # it lists the catalogs when it begins
                run.generations = {key: len(self.stamps[key]) - 1 for key in run.reading}
            for key in [key for key, ends_at in run.reading.items() if self.is_over(ends_at)]:
                if run.reading.pop(key) < run.dies_at:
                    self.end_read(key, run.generations[key])
            if run.dies_at <= self.now:
                run.reading.clear()

    def end_read(self, key: str, generation: int) -> None:
        if key not in self.fails and not self.happens(0.3):
            self.done[key] = f"{self.stamps[key][generation]:.0f}"
            self.reads[key, generation] += 1

    def tries(self, missing: Sequence[Wanted]) -> Mapping[str, Tries]:
        return count_tries(missing, [run.requested for run in self.runs], self.now)

    def launch(self, requests: Sequence[list[Wanted]]) -> None:
        for number, request in enumerate(requests):
            if self.happens(0.1 / MAX_RUNS):  # the daemon dies; it may go on with the tick
                self.unlaunched = [] if self.happens(0.5) else list(requests[number:])
                return
            first, last = request[0], request[-1]
            keys = KeyOrder(self.known).between(first.key, last.key)
            requested = RequestedRun(self.now, keys, first.request if len(request) == 1 else "")
            self.launched.update(f"{key}@{self.version(key)}" for key in keys)
            ends = {key: self.now + self.random.expovariate(1 / (10 * MINUTE)) for key in keys}
            dies_at = self.random.choice(list(ends.values())) if self.happens(0.1) else math.inf
            self.runs.append(Running(requested, ends, dies_at))

    def tick(self, interval: float = 5 * MINUTE) -> TickPlan | None:
        self.pass_time(interval)
        if self.happens(0.05):
            self.now += self.random.choice([-3, 2]) * HOUR
        resumed, self.unlaunched = self.unlaunched, []
        self.launch(resumed)
        if self.unlaunched or self.happens(0.15):  # a tick that is lost
            return None
        if self.happens(0.05):
            self.delete_runs()
        busy = {key for run in self.runs for key in run.requested.keys if run.reading}
        self.pass_time(5.0)
        wanted = [Wanted(key, self.version(key), stamps[-1]) for key, stamps in self.stamps.items()]
        self.pass_time(5.0)
        planned = self.planner(
            wanted, dict(self.done), self.tries, busy, self.now, known=self.known, most=self.most
        )
        self.known += planned.new_partitions
        self.launch(planned.requests)
        return planned

    def delete_runs(self) -> None:
        """Forget finished runs, as Dagster's retention or an operator does."""
        self.runs = [run for run in self.runs if run.reading or self.random.random() < 0.9]

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


def simulated(
    catalogs: int, ticks: int, planner: Planner = plan, seed: int = 7, most: int = 1
) -> World:
    world = World(catalogs, seed, planner, most, broken=70)
    for _ in range(ticks):
        world.tick()
    world.most_tries = max(world.launched.values())
    world.settle()
    return world


@pytest.mark.long
@pytest.mark.parametrize("most", [1, 7, 200])
@pytest.mark.parametrize("seed", range(7, 28))
def test_each_version_of_each_catalog_gets_one_successful_run(seed: int, most: int) -> None:
    world = simulated(1000, 200, seed=seed, most=most)
    print(
        f"{len(world.reads):,} versions read by {world.launched.total():,} tries, "
        f"at most {world.most_tries} of one version"
    )
    assert world.unread() == set()
    assert world.read_twice() == 0
    assert world.most_tries < MOST_TRIES
    assert len(world.reads) > 1000


def test_a_wait_stays_the_longest_after_any_number_of_tries() -> None:
    assert Tries(5_000, 0.0).are_recent(6 * HOUR - 1)
    assert not Tries(5_000, 0.0).are_recent(6 * HOUR)


def without_busy(
    wanted: Any, done: Any, tried: Any, busy: Any, *others: Any, **named: Any
) -> TickPlan:
    return plan(wanted, done, tried, (), *others, **named)


def without_tries(wanted: Any, done: Any, _: Any, *others: Any, **named: Any) -> TickPlan:
    return plan(wanted, done, lambda _: {}, *others, **named)


def cap_before_waits(wanted: Any, done: Any, tried: Any, *others: Any, **named: Any) -> TickPlan:
    runs = plan(wanted, done, lambda _: {}, *others, **named).requests
    keys = {each.key for run in runs for each in run}
    return plan([each for each in wanted if each.key in keys], done, tried, *others, **named)


def any_version_is_enough(wanted: Any, *others: Any, **named: Any) -> TickPlan:
    return plan([each._replace(version="") for each in wanted], *others, **named)


def gaps_are_bridged(*arguments: Any, known: Any, **named: Any) -> TickPlan:
    planned = plan(*arguments, known=known, **named)
    place = [*known, *planned.new_partitions].index
    runs = sorted(planned.requests, key=lambda run: place(run[0].key))
    bridges = [[run[0], after[0]] for run, after in itertools.pairwise(runs)]
    return planned._replace(requests=bridges)


@pytest.mark.long
@pytest.mark.parametrize(
    ("mutant", "most"),
    [
        (without_busy, 1),
        (without_busy, 200),
        (without_tries, 1),
        (without_tries, 200),
        (cap_before_waits, 1),
        (any_version_is_enough, 1),
        (gaps_are_bridged, 200),
    ],
)
def test_a_plan_that_is_broken_is_noticed(mutant: Planner, most: int) -> None:
    world = simulated(1000, 200, mutant, most=most)
    assert world.unread() or world.read_twice() or world.most_tries >= MOST_TRIES
