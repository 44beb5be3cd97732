"""Measurements in rounds, and the rows of the table that come from them."""

import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

_T = TypeVar("_T")


@dataclass(frozen=True)
class Row:
    """A row of the table.

    Attributes:
        name: The name of the benchmark.
        generation: The contract of the server; empty if there was none.
        what: What is measured, or divided by what.
        values: A value for each round.
        measured: The value that is compared with the target.
        target: The largest value that reaches the target; None without a target.
        unit: The unit of the values; empty for ratios.
        medians: The medians behind a ratio.
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
    """The measurements of each contender, round by round."""

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
        """Return a row for the ratio of two contenders in each round. The median counts."""
        above, below = ([value(one) for one in self.by_contender[contender]] for contender in pair)
        ratios = [a / b for a, b in zip(above, below, strict=True)]
        medians = " ÷ ".join(_with_unit(statistics.median(side), unit) for side in (above, below))
        return Row(
            name, generation, what, ratios, statistics.median(ratios), target, medians=medians
        )


def run_rounds(contenders: Mapping[str, Callable[[], _T]], rounds: int) -> Rounds[_T]:
    """Measure all contenders in turn in each round, so that a slow minute affects all of them."""
    measured: dict[str, list[_T]] = {contender: [] for contender in contenders}
    for number in range(1, rounds + 1):
        for contender, measure in contenders.items():
            say(f"  round {number} of {rounds}: {contender}")
            measured[contender].append(measure())
    return Rounds(measured)


def say(text: str) -> None:
    """Print progress to standard error, apart from the results."""
    print(text, file=sys.stderr, flush=True)


def _with_unit(value: float, unit: str) -> str:
    return f"{value:.2f} {unit}" if value < 100 else f"{value:.0f} {unit}"
