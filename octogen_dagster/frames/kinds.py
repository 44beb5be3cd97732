"""TableKind: a table's schema, key, checks and previews, defined in one place."""

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
    """A check's result.

    Attributes:
        passed: True if the table passes the check.
        text: One or two sentences that start with the table's name.
        figures: Numbers, texts and tables shown with the result, by name.
    """

    passed: bool
    text: str
    figures: Mapping[str, Any] = MappingProxyType({})


class Check(NamedTuple):
    """An asset check for every table of a kind, based on row rules or materialization metadata.

    Attributes:
        description: What is true if the check passes.
        advice: What to do if the check fails.
        judge: The function for a check without rules. It takes the table's name and its last
            materialization's metadata, such as `octogen/products`, by name.
        warns: True for a check that only warns and never blocks.
    """

    description: str
    advice: str = ""
    judge: Callable[[str, Mapping[str, Any]], Verdict] | None = None
    warns: bool = False


class Rule(NamedTuple):
    """A condition that is true for a table's bad rows.

    Attributes:
        check: The name of the check that fails.
        name: What is wrong with a bad row.
        bad: True for bad rows.
        limit: The allowed share of bad rows, in percent.
        columns: The columns that the rule needs and the check shows.
    """

    check: str
    name: str
    bad: pl.Expr
    limit: float
    columns: tuple[str, ...]


class Markdown(str):
    """Markdown text in a table's metadata."""


class Published(NamedTuple):
    """A published snapshot, from which a table kind computes more metadata.

    Attributes:
        rows: The snapshot's rows.
        file_metadata: The file metadata.
        before: Opens the previous snapshot and its file metadata, or returns None for the first
            snapshot. The attribute is None if another IO manager stores the snapshots.
    """

    rows: pl.LazyFrame
    file_metadata: Mapping[str, str]
    before: Callable[[], tuple[pl.LazyFrame, Mapping[str, str]] | None] | None = None


Shown = Mapping[str, Any]
"""Metadata by name: numbers, frames shown as tables, and `Markdown` texts."""


@dataclass(frozen=True, eq=False)
class TableKind:
    """What a stored table contains, and how to check and show it. Kinds compare by identity.

    Attributes:
        schema: The columns; empty if not known in advance.
        descriptions: Column descriptions by name, stored as comments in databases.
        key: The columns that identify a row; empty if unknown.
        key_has_nulls: False if key columns are never null, so that they can be a primary key.
        volatile: The columns that do not count as a change, such as the read time. A snapshot that
            differs only in these keeps its data version, so it triggers nothing downstream.
        watched: The kinds of change that a history records, each with the columns it compares.
        made_from: For each column, the upstream columns it is computed from (column lineage).
        accumulates: True if a database keeps every snapshot's rows, with the time they were read.
        sentence: Returns a Markdown summary, given the metrics, such as `rows`, and the rows.
        preview: Returns the first rows as a frame of cells, given the rows.
        parts: Functions that compute more metadata, by the name that a warning uses if one fails.
        first: Names or prefixes of metadata shown first, in order: texts before the preview, and
            numbers after the row count.
        collected: Metrics that nobody plots, grouped in one metadata entry.
        line: The word for rows in the trend over snapshots; None to leave out the row count.
        checks: Checks by name. Defaults to the checks that fit the columns.
        rules: The rules for these checks.
        in_order: Sorts the rows for rules that compare adjacent rows.

    Raises:
        ValueError: An argument names a column that the schema does not have, a rule names an
            unknown check, or a check has neither a rule nor a function.
    """

    schema: pl.Schema = field(default_factory=pl.Schema)
    descriptions: Mapping[str, str] = field(default_factory=dict)
    key: tuple[str, ...] = ()
    key_has_nulls: bool = True
    volatile: tuple[str, ...] = ()
    watched: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    made_from: Mapping[str, Sequence[str]] = field(default_factory=dict)
    accumulates: bool = False
    sentence: Callable[[Figures, pl.LazyFrame], str] = lambda figures, _: (
        f"**{count(figures['rows'], 'row')}**"
    )
    preview: Callable[[pl.LazyFrame], pl.DataFrame] = first_columns
    parts: Mapping[str, Callable[[Published], Shown]] = field(default_factory=dict)
    first: tuple[str, ...] = ()
    collected: tuple[str, ...] = ()
    line: str | None = "rows"
    checks: Mapping[str, Check] = field(default_factory=dict)
    rules: Sequence[Rule] = ()
    in_order: Callable[[pl.LazyFrame], pl.LazyFrame] = lambda rows: rows

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
                    f"{argument} in a TableKind names the column {unknown[0]!r}, which the schema "
                    f"does not have.{did_you_mean(unknown[0], columns)} Fix the name, or add the "
                    "column to the schema."
                )
        ruled = {rule.check for rule in self.rules}
        for name in sorted(ruled - self.checks.keys()):
            raise ValueError(
                f"A rule in a TableKind names the check {name!r}, which is not in checks."
                f"{did_you_mean(name, self.checks)} Fix the name, or add the check."
            )
        for name, check in self.checks.items():
            if name not in ruled and check.judge is None:
                raise ValueError(
                    f"The check {name!r} in a TableKind has neither a rule nor a function, so it "
                    "would always pass. Add a Rule for it, or pass `judge` to the Check."
                )


PLAIN = TableKind()
"""The kind for any other table."""
