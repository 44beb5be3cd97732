"""Measurements in rounds, and the rows of the table that come from them."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Generic, TypeVar

from benchmarks.processes import Measurement

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
class ShapeRow:
    """A row of the table by shape.

    Attributes:
        generation: The contract of the server.
        shape: The name of the shape.
        page_bytes: The mean size of a page, in bytes.
        cpu: The CPU time ÷ that of plain pages.
        cpu_per_byte: The same; for a larger page the CPU time of each byte.
        peak: The peak memory ÷ that of plain pages.
        others: The wall time ÷ that of other tools, by contender; None if it cannot read the pages.
    """

    generation: str
    shape: str
    page_bytes: int
    cpu: float
    cpu_per_byte: float
    peak: float
    others: Mapping[str, float | None]


@dataclass(frozen=True)
class Rounds(Generic[_T]):
    """The measurements of each contender, round by round."""

    by_contender: Mapping[str, Sequence[_T]]

    def ratios(self, pair: tuple[str, str], value: Callable[[_T], float]) -> list[float]:
        """Return the ratio of two contenders in each round."""
        above, below = (map(value, self.by_contender[contender]) for contender in pair)
        return [a / b for a, b in zip(above, below, strict=True)]

    def medians(self, pair: tuple[str, str], value: Callable[[_T], float], unit: str) -> str:
        """Return the medians of two contenders as text."""
        return " ÷ ".join(
            _with_unit(statistics.median(map(value, self.by_contender[contender])), unit)
            for contender in pair
        )

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
        ratios = self.ratios(pair, value)
        medians = self.medians(pair, value, unit)
        return Row(
            name, generation, what, ratios, statistics.median(ratios), target, medians=medians
        )


class Reads(Rounds[Measurement]):
    """Reads of contenders, whose rows show the CPU time beside the wall time."""

    def compare(
        self,
        name: str,
        generation: str,
        what: str,
        pair: tuple[str, str],
        figure: str,
        target: float | None = None,
    ) -> Row:
        """Return a row for the ratio of two contenders in each round. The median counts.

        Args:
            name: The name of the benchmark.
            generation: The contract of the server.
            what: What is divided by what.
            pair: The two contenders.
            figure: The attribute of `Measurement` that is compared.
            target: The largest ratio that reaches the target.
        """
        ratios = self.ratios(pair, attrgetter(figure))
        shown = {"peak_mb": "MB"} if figure == "peak_mb" else {"cpu_seconds": "s", "seconds": "s"}
        medians = "; ".join(
            f"{_LABELS[shown_figure]} {self.medians(pair, attrgetter(shown_figure), unit)}"
            for shown_figure, unit in shown.items()
        )
        return Row(
            name, generation, what, ratios, statistics.median(ratios), target, medians=medians
        )


_LABELS = {"peak_mb": "peak", "cpu_seconds": "CPU", "seconds": "wall"}


def run_rounds(contenders: Mapping[str, Callable[[], _T]], rounds: int) -> Rounds[_T]:
    """Measure all contenders in turn in each round, so that a slow minute affects all of them.

    The order is reversed from round to round, so that no contender is always first.
    """
    measured: dict[str, list[_T]] = {contender: [] for contender in contenders}
    for number in range(1, rounds + 1):
        order = list(contenders) if number % 2 else list(contenders)[::-1]
        for contender in order:
            say(f"  round {number} of {rounds}: {contender}")
            measured[contender].append(contenders[contender]())
    return Rounds(measured)


def run_reads(contenders: Mapping[str, Callable[[], Measurement]], rounds: int) -> Reads:
    """Measure the reads of all contenders, as `run_rounds` does."""
    return Reads(run_rounds(contenders, rounds).by_contender)


def worst(name: str, generation: str, what: str, values: Sequence[float], target: float) -> Row:
    """Return a row in MB whose worst round counts."""
    return Row(name, generation, what, values, max(values), target, unit=" MB")


def say(text: str) -> None:
    """Print progress to standard error, apart from the results."""
    print(text, file=sys.stderr, flush=True)


def _with_unit(value: float, unit: str) -> str:
    return f"{value:.2f} {unit}" if value < 100 else f"{value:.0f} {unit}"
