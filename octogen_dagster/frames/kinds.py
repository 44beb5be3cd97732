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
    """An asset check that applies to every table of a kind.

    A check either has rules, which find bad rows, or a `judge` function, which receives the
    metadata of the latest materialization.

    Attributes:
        description: A statement that is true if the check passes.
        advice: What to do if the check fails.
        judge: The function for a check that has no rules. It receives the table's name and the
            latest materialization's metadata by key, such as `octogen/products`.
        warns: True for a check that only warns and never blocks.
    """

    description: str
    advice: str = ""
    judge: Callable[[str, Mapping[str, Any]], Verdict] | None = None
    warns: bool = False


class Rule(NamedTuple):
    """A condition that identifies a table's bad rows.

    Attributes:
        check: The name of the check that fails.
        name: What is wrong with a bad row.
        bad: An expression that is true for bad rows.
        limit: The maximum percentage of bad rows.
        columns: The columns that the rule requires and the check displays.
    """

    check: str
    name: str
    bad: pl.Expr
    limit: float
    columns: tuple[str, ...]


class Markdown(str):
    """Markdown text in a table's metadata."""


class Published(NamedTuple):
    """A published snapshot, passed to the functions that compute a table's additional metadata.

    Attributes:
        rows: The snapshot's rows.
        file_metadata: The metadata in the snapshot's Parquet file.
        before: A function that returns the previous snapshot's rows and file metadata. It returns
            None for the first snapshot. The attribute itself is None if another IO manager stores
            the snapshots.
    """

    rows: pl.LazyFrame
    file_metadata: Mapping[str, str]
    before: Callable[[], tuple[pl.LazyFrame, Mapping[str, str]] | None] | None = None


Shown = Mapping[str, Any]
"""Metadata by name. A value is a number, a `Markdown` text, or a frame to show as a table."""


@dataclass(frozen=True, eq=False)
class TableKind:
    """The columns, checks and previews of a kind of table. Kinds are compared by identity.

    Attributes:
        schema: The columns; empty if not known in advance.
        descriptions: Column descriptions by name, stored as comments in databases.
        key: The columns that identify a row; empty if unknown.
        key_has_nulls: False if key columns are never null, so that they can be a primary key.
        volatile: Columns whose changes are ignored, such as the read time. A snapshot that differs
            only in these columns keeps its data version, so it does not trigger downstream assets.
        watched: The kinds of changes that a history records, and the columns compared for each.
        made_from: For each column, the upstream columns from which it is computed (column lineage).
        accumulates: True if a database keeps the rows of every snapshot, with their read time.
        sentence: A function that returns a Markdown summary, given the metrics (such as `rows`) and
            the table.
        preview: A function that returns the table's first rows as a frame of cells.
        parts: Functions that compute additional metadata. If a function fails, the warning contains
            its name in this mapping.
        first: Names or prefixes of metadata to show first, in this order. Texts are shown before
            the preview, and numbers after the row count.
        collected: Metrics that are not worth plotting. They are grouped in one metadata entry.
        line: The label for the row count in the trend table; None to omit the row count.
        checks: Checks by name. Defaults to the checks that fit the columns.
        rules: The rules for these checks.
        in_order: A function that sorts the rows, for rules that compare adjacent rows.

    Raises:
        ValueError: An argument refers to a column that is not in the schema, a rule refers to an
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
                    f"{argument} in a TableKind refers to the column {unknown[0]!r}, which is not "
                    f"in the schema.{did_you_mean(unknown[0], columns)} Fix the name, or add the "
                    "column to the schema."
                )
        ruled = {rule.check for rule in self.rules}
        for name in sorted(ruled - self.checks.keys()):
            raise ValueError(
                f"A rule in a TableKind refers to the check {name!r}, which is not in `checks`."
                f"{did_you_mean(name, self.checks)} Fix the name, or add the check."
            )
        for name, check in self.checks.items():
            if name not in ruled and check.judge is None:
                raise ValueError(
                    f"The check {name!r} in a TableKind would always pass, because it has neither "
                    "a rule nor a `judge` function. Add a Rule for the check, or pass `judge` to "
                    "Check."
                )


PLAIN = TableKind()
"""The kind for any other table."""
