"""Rounds: every contender once, then every contender again, so that a slow minute hits all."""

import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

_T = TypeVar("_T")


@dataclass(frozen=True)
class Row:
    """A line of the table.

    Attributes:
        name: The benchmark.
        generation: The contract the server spoke, if one was asked.
        what: What is divided by what.
        values: One for each round.
        measured: The figure that is held against the target.
        target: The most it may be, if there is a target.
        unit: Of the values; ratios have none.
        medians: What the values come from.
    """

    name: str
    generation: str
    what: str
    values: Sequence[float]
    measured: float
    target: float | None = None
    unit: str = ""
    medians: str = ""


@dataclass(frozen=True)
class Rounds(Generic[_T]):
    """What each contender measured, round by round."""

    by_contender: Mapping[str, Sequence[_T]]

    def row(
        self,
        name: str,
        generation: str,
        what: str,
        pair: tuple[str, str],
        value: Callable[[_T], float],
        unit: str,
        target: float | None = None,
    ) -> Row:
        """The ratio of two contenders, within each round; the median counts."""
        above, below = ([value(one) for one in self.by_contender[contender]] for contender in pair)
        ratios = [a / b for a, b in zip(above, below, strict=True)]
        medians = " ÷ ".join(_with_unit(statistics.median(side), unit) for side in (above, below))
        return Row(
            name, generation, what, ratios, statistics.median(ratios), target, medians=medians
        )


def run_rounds(contenders: Mapping[str, Callable[[], _T]], rounds: int) -> Rounds[_T]:
    """A B C, A B C, ..."""
    measured: dict[str, list[_T]] = {contender: [] for contender in contenders}
    for number in range(1, rounds + 1):
        for contender, measure in contenders.items():
            say(f"  round {number} of {rounds}: {contender}")
            measured[contender].append(measure())
    return Rounds(measured)


def say(text: str) -> None:
    """Progress, apart from the results."""
    print(text, file=sys.stderr, flush=True)


def _with_unit(value: float, unit: str) -> str:
    return f"{value:.2f} {unit}" if value < 100 else f"{value:.0f} {unit}"
