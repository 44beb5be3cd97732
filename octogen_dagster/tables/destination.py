"""Destinations of tables: the protocol of an engine, and what it is told of a table."""

from __future__ import annotations

import enum
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, ClassVar, NamedTuple, TypeAlias, TypeVar

import dagster as dg

from octogen_dagster.assets.settings import Settings
from octogen_dagster.errors import OctogenTableError, Persistence
from octogen_dagster.masking import is_secret, refuse_secrets

if TYPE_CHECKING:
    from datetime import datetime

    import polars as pl


_Option = TypeVar("_Option")


class ColumnType(enum.Enum):
    """The type of a column. Each engine has its own name for it."""

    TEXT = "text"
    INTEGER = "whole number of 64 bits"
    FLOAT = "double"
    DECIMAL = "decimal number with 9 places"
    BOOLEAN = "boolean"
    DATE = "date"
    TIME = "time of day"
    TIMESTAMP = "time in UTC"
    LOCAL_TIMESTAMP = "time without a time zone"
    BINARY = "bytes"
    JSON = "JSON"
    NESTED = "list or struct"


class Column(NamedTuple):
    """A column of a table.

    Attributes:
        name: Its name, which is that of the snapshot's column or is made from it.
        type: Its type. Frames have JSON as text.
        description: The comment on it; empty for none.
    """

    name: str
    type: ColumnType
    description: str = ""


class Table(NamedTuple):
    """A table that rows are put into.

    Attributes:
        schema: The schema that it is in; in BigQuery the dataset.
        name: Its name.
        columns: The columns of the rows. The table may have others, which become null.
        key: The columns that tell its rows apart, for its primary key; empty if none do.
        has_null_keys: True if a column of the key may be null, so that it is no primary key.
        parts: The columns that tell which snapshot a row is of, for an index.
        description: The comment on it; empty for none.
    """

    schema: str
    name: str
    columns: tuple[Column, ...]
    key: tuple[str, ...] = ()
    parts: tuple[str, ...] = ()
    description: str = ""
    has_null_keys: bool = False


Rows: TypeAlias = "Mapping[str, str | int | datetime]"
"""The rows of a table that have these values; all of them if it is empty."""


class Load(NamedTuple):
    """What is noted of rows of a snapshot that were put into a table.

    Attributes:
        snapshot_id: The id of the snapshot that the rows are of.
        row_count: The number of rows.
        run_id: The id of the run of Dagster.
    """

    snapshot_id: str
    row_count: int
    run_id: str


class TableConnection(ABC):
    """An open connection to a destination.

    Errors are of the type `OctogenTableError`.

    Attributes:
        has_nested: True if a column may be a list or a struct, which is JSON elsewhere.
    """

    has_nested: ClassVar[bool] = False

    @abstractmethod
    def columns(self, table: Table) -> Mapping[str, ColumnType | pl.DataType | None]:
        """Return the columns that a table has, by name; none if there is no table.

        The type is None if it is none that this package makes. A list or struct has that of Polars.
        """

    @abstractmethod
    def holds(self, table: Table, rows: Rows, load: Load) -> bool:
        """Return True if this load was the last one of these rows that was noted."""

    @abstractmethod
    def replace(self, table: Table, rows: Rows, frames: Iterable[pl.DataFrame], load: Load) -> None:
        """Put frames into the table in place of these rows, and note the load.

        The frames have exactly the columns of the table, which is made if it is not there, and gets
        the columns that it lacks. Deleting the rows, adding those of the frames and noting the load
        is one transaction, and two of them on the same rows come one after the other, or one fails
        with a `TableConflictError`. Before it, no reader of the table sees anything of the frames.
        """

    @abstractmethod
    def count(self, table: Table, rows: Rows) -> int:
        """Return how many of these rows a table has; 0 if there is no table."""

    @abstractmethod
    def try_out(self, schema: str) -> None:
        """Make a table in a schema and drop it, with the schema if it was not there."""

    def cancel(self) -> None:  # noqa: B027
        """End what another thread does with the connection, which fails there.

        By default it ends with the next frame.
        """


class TableConflictError(OctogenTableError):
    """Another run changed the same rows at the same time. Nothing was changed; try again."""

    persistence = Persistence.PASSING


class TableDestination(Settings, ABC):
    """A database or a warehouse that snapshots are put into as tables.

    A custom one is a subclass whose fields are its settings in Python and in YAML, where a text
    stands for the first field if the others have defaults. `SQLConnection` has what SQL engines
    share.

    Attributes:
        kind: The name of the engine in YAML and in Dagster's UI, such as `postgres`. A built-in
            destination has a module and an extra of this name.
        environment_fields: The fields that YAML takes from environment variables only.
    """

    kind: ClassVar[str]
    environment_fields: ClassVar[tuple[str, ...]] = ()
    error = OctogenTableError

    @property
    def default_schema(self) -> str:
        """The schema of its tables by default."""
        return "octogen"

    @property
    @abstractmethod
    def place(self) -> str:
        """What it is and where, without a secret, such as `PostgreSQL (shop at db.example)`."""

    @property
    @abstractmethod
    def pool(self) -> str:
        """The pool of Dagster that its assets share."""

    @property
    def secrets(self) -> Sequence[str]:
        """The values that no error may show: those of fields without `repr`, and their options."""
        found = []
        for name, field in type(self).model_fields.items():
            value = getattr(self, name)
            if not field.repr and isinstance(value, Mapping):
                found += [str(each) for option, each in value.items() if is_secret(option, each)]
            elif not field.repr and value:
                found.append(value)
        return found

    @abstractmethod
    def connect(self) -> AbstractContextManager[TableConnection]:
        """Open a connection for the time of a block.

        Raises:
            OctogenTableError: It cannot be reached or refuses the credentials.
        """

    def try_out(self) -> None:
        """Connect, make a table and drop it.

        Raises:
            OctogenTableError: One of them fails.
        """
        with self.connect() as connection:
            connection.try_out(self.default_schema)


def refuse_written_secrets(options: dict[str, _Option]) -> dict[str, _Option]:
    """Refuse a secret among options that is not an environment variable's."""
    refuse_secrets({n: value for n, value in options.items() if not isinstance(value, dg.EnvVar)})
    return options


def pool_of(kind: str, name: str) -> str:
    """The pool of a destination by its name, or by that of the variable that has it."""
    text = name.env_var_name if isinstance(name, dg.EnvVar) else name
    words = re.findall(r"[A-Za-z0-9]+", text)
    return "_".join(["octogen", kind, *words])
