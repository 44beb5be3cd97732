"""The kind of a table: a value beside its schema, from which everything else knows what it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, NamedTuple

import polars as pl

from octogen_dagster.frames.cells import Figures, first_columns
from octogen_dagster.printable import count
from octogen_dagster.validation import did_you_mean


class Verdict(NamedTuple):
    """The finding of a check.

    Attributes:
        passed: True if the table is as it should be.
        text: A sentence or two, which begin with the table's name.
        figures: Numbers, texts and tables that are shown with it, by name.
    """

    passed: bool
    text: str
    figures: Mapping[str, Any] = MappingProxyType({})


class Check(NamedTuple):
    """A check of the tables of a kind: by rules for its rows, or by what was said of it last.

    Attributes:
        description: What holds if it passes.
        advice: What to do if it fails.
        judge: For a check without rules: takes the table's name and the entries of its last
            materialization, such as `octogen/products`, by name.
        warns: True for a check that only warns, and so never blocks.
    """

    description: str
    advice: str = ""
    judge: Callable[[str, Mapping[str, Any]], Verdict] | None = None
    warns: bool = False


class Rule(NamedTuple):
    """A condition that only the bad rows of a table meet.

    Attributes:
        check: The name of the check that fails.
        name: What is wrong with such a row.
        bad: True for a row that is bad.
        limit: How many percent of the rows may be bad.
        columns: The columns that the rule needs, which the check shows.
    """

    check: str
    name: str
    bad: pl.Expr
    limit: float
    columns: tuple[str, ...]


class Markdown(str):
    """A text in Markdown that is shown of a table."""


class Published(NamedTuple):
    """A snapshot that was published, as its kind may look at it to show more of it.

    Attributes:
        rows: Its rows.
        file_metadata: The metadata of its file.
        before: Opens the previous snapshot, with the metadata of its file; it returns None if there
            is none. None itself where another IO manager keeps them.
    """

    rows: pl.LazyFrame
    file_metadata: Mapping[str, str]
    before: Callable[[], tuple[pl.LazyFrame, Mapping[str, str]] | None] | None = None


Shown = Mapping[str, Any]
"""Figures, frames that are shown as tables, and texts in `Markdown`, by the names of entries."""


def _rows_sentence(figures: Figures, _: pl.LazyFrame) -> str:
    return f"**{count(figures['rows'], 'row')}**"


def _unchanged(rows: pl.LazyFrame) -> pl.LazyFrame:
    return rows


@dataclass(frozen=True, eq=False)
class TableKind:
    """The kind of a stored table. Two kinds are the same only if they are one object.

    Attributes:
        schema: Its columns; empty if they are not known beforehand.
        descriptions: The descriptions of columns by name, which a database has as comments.
        key: The columns that tell its rows apart; none if that is not known.
        key_has_nulls: False if none of these is ever null, so that they are a primary key.
        volatile: The columns that do not count as a change, such as the time of a read. A snapshot
            that differs in nothing else keeps its data version, so it triggers nothing downstream.
        watched: The kinds of change that a history of it tells, each with the columns that are
            compared.
        made_from: The columns of the asset it is made from, by the column that they go into.
        accumulates: True if a database keeps the rows of each snapshot, with the time at which it
            was read.
        sentence: Says what is in it, in Markdown: takes its figures, such as `rows`, and its rows.
        preview: Takes its rows, and returns the first ones as a frame of cells.
        parts: What else is shown of a snapshot, by what a warning calls it if it fails.
        first: The names, or their beginnings, of entries that come first, in their order: texts
            before the preview, and figures after the number of rows.
        collected: The figures that nobody plots, which are one entry together with others.
        line: What its rows are in the line over snapshots; None if their number says little.
        checks: Its checks by name; without any it has those that fit its columns.
        rules: The bad rows of these checks.
        in_order: Puts the rows into the order in which the rules compare neighbours.

    Raises:
        ValueError: A column is named that the schema does not have, or a check that is not there;
            or a check has neither a rule nor a function.
    """

    schema: pl.Schema = field(default_factory=pl.Schema)
    descriptions: Mapping[str, str] = field(default_factory=dict)
    key: tuple[str, ...] = ()
    key_has_nulls: bool = True
    volatile: tuple[str, ...] = ()
    watched: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    made_from: Mapping[str, Sequence[str]] = field(default_factory=dict)
    accumulates: bool = False
    sentence: Callable[[Figures, pl.LazyFrame], str] = _rows_sentence
    preview: Callable[[pl.LazyFrame], pl.DataFrame] = first_columns
    parts: Mapping[str, Callable[[Published], Shown]] = field(default_factory=dict)
    first: tuple[str, ...] = ()
    collected: tuple[str, ...] = ()
    line: str | None = "rows"
    checks: Mapping[str, Check] = field(default_factory=dict)
    rules: Sequence[Rule] = ()
    in_order: Callable[[pl.LazyFrame], pl.LazyFrame] = _unchanged

    def __post_init__(self) -> None:
        columns = {*self.schema, *(["fetched_at"] if self.accumulates else [])}
        named = {
            "descriptions": self.descriptions,
            "key": self.key,
            "volatile": self.volatile,
            "watched": [name for names in self.watched.values() for name in names],
            "made_from": self.made_from,
            "rules": [name for rule in self.rules for name in rule.columns],
        }
        for argument, names in named.items():
            if unknown := [name for name in names if self.schema and name not in columns]:
                raise ValueError(
                    f"{argument} of a TableKind names the column {unknown[0]!r}, which its schema "
                    f"does not have.{did_you_mean(unknown[0], columns)} Name one of the schema, or "
                    "add it there."
                )
        ruled = {rule.check for rule in self.rules}
        for name in sorted(ruled - self.checks.keys()):
            raise ValueError(
                f"A rule of a TableKind names the check {name!r}, which is not in its checks."
                f"{did_you_mean(name, self.checks)} Add it there."
            )
        for name, check in self.checks.items():
            if name not in ruled and check.judge is None:
                raise ValueError(
                    f"The check {name!r} of a TableKind has neither a rule nor a function, so it "
                    "would always pass. Add a Rule of it, or give the Check its `judge`."
                )


PLAIN = TableKind()
"""Any other table."""
