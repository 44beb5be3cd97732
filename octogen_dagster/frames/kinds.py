"""The kind of a table: a value beside its schema, from which everything else knows what it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import polars as pl


class Check(NamedTuple):
    """A check that only tables of a kind have.

    Attributes:
        description: What holds if it passes.
        advice: What to do if it fails.
        lacks: The entry of a materialization that says what is wrong, of a check without rules.
        passed: What such a check says of a table if it passes.
    """

    description: str
    advice: str
    lacks: str = ""
    passed: str = ""


class Rule(NamedTuple):
    """Rows that are bad, of which a snapshot may have a share; `name` says what is bad."""

    check: str
    name: str
    bad: pl.Expr
    limit: float
    columns: tuple[str, ...]


class Markdown(str):
    """A text in Markdown that is shown of a table."""


class Published(NamedTuple):
    """A snapshot that was published, as what is shown of it may look at it.

    Attributes:
        rows: Its rows.
        file_metadata: The metadata of its file.
        before: Opens the snapshot before: its rows and the metadata of its file; None without any.
    """

    rows: pl.LazyFrame
    file_metadata: Mapping[str, str]
    before: Callable[[], tuple[pl.LazyFrame, Mapping[str, str]] | None] = lambda: None


def _unchanged(rows: pl.LazyFrame) -> pl.LazyFrame:
    return rows


@dataclass(frozen=True, eq=False)
class TableKind:
    """What a stored table is. Two kinds are the same only if they are one object.

    Attributes:
        schema: Its columns; empty if they are not known beforehand.
        descriptions: The descriptions of columns by name.
        checks: The checks that it has besides those of any products, by name.
        rules: The bad rows of these checks.
        in_order: Puts the rows into the order in which the rules compare neighbours.
    """

    schema: pl.Schema = field(default_factory=pl.Schema)
    descriptions: Mapping[str, str] = field(default_factory=dict)
    checks: Mapping[str, Check] = field(default_factory=dict)
    rules: Sequence[Rule] = ()
    in_order: Callable[[pl.LazyFrame], pl.LazyFrame] = _unchanged


PLAIN = TableKind()
"""Any other table."""
