"""TableDestination and TableConnection: the base classes that each engine implements."""

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
    """An engine-independent column type. Each engine maps these types to native types."""

    TEXT = "text"
    INTEGER = "64-bit integer"
    FLOAT = "double"
    DECIMAL = "decimal with 9 places"
    BOOLEAN = "boolean"
    DATE = "date"
    TIME = "time of day"
    TIMESTAMP = "timestamp in UTC"
    LOCAL_TIMESTAMP = "timestamp without time zone"
    BINARY = "bytes"
    JSON = "JSON"
    NESTED = "list or struct"


class Column(NamedTuple):
    """A column of a table.

    Attributes:
        name: The name of the snapshot column, or a name derived from it.
        type: The column's type. In frames, JSON values are strings.
        description: The column comment; empty for no comment.
    """

    name: str
    type: ColumnType
    description: str = ""


class Table(NamedTuple):
    """A table to load rows into.

    Attributes:
        schema: The table's schema. In BigQuery, this is the dataset.
        name: The table's name.
        columns: The columns to load. Any other columns in the table are set to null.
        key: The columns that identify a row, used as the primary key; empty for no key.
        has_null_keys: True if a key column can be null. The table then has no primary key.
        parts: The columns that identify the snapshot to which a row belongs. They are indexed.
        description: The table comment; empty for no comment.
    """

    schema: str
    name: str
    columns: tuple[Column, ...]
    key: tuple[str, ...] = ()
    parts: tuple[str, ...] = ()
    description: str = ""
    has_null_keys: bool = False


Rows: TypeAlias = "Mapping[str, str | int | datetime]"
"""Column values that select rows. An empty mapping selects all rows."""


class Load(NamedTuple):
    """A load record, which identifies the loaded snapshot and the Dagster run.

    Attributes:
        snapshot_id: The id of the snapshot.
        row_count: The number of rows loaded.
        run_id: The id of the Dagster run.
    """

    snapshot_id: str
    row_count: int
    run_id: str


class TableConnection(ABC):
    """An open connection to a destination.

    The methods raise `OctogenTableError`.

    Attributes:
        has_nested: True if columns can contain lists and structs. If it is false, lists and structs
            are stored as JSON.
    """

    has_nested: ClassVar[bool] = False

    @abstractmethod
    def columns(self, table: Table) -> Mapping[str, ColumnType | pl.DataType | None]:
        """Return a table's columns by name, or an empty mapping if the table does not exist.

        Lists and structs are returned as Polars types. None stands for an unsupported type.
        """

    @abstractmethod
    def holds(self, table: Table, rows: Rows, load: Load) -> bool:
        """Return True if the latest load record for the selected rows matches this load."""

    @abstractmethod
    def replace(self, table: Table, rows: Rows, frames: Iterable[pl.DataFrame], load: Load) -> None:
        """Replace the selected rows with the frames, and write the load record.

        The frames have exactly the columns in `table`. The table and any missing columns are
        created first. One transaction deletes the rows, inserts the frames and writes the load
        record. If two transactions replace the same rows at the same time, they run one after
        another, or one of them raises `TableConflictError`. Readers see the new rows only after the
        commit.
        """

    @abstractmethod
    def count(self, table: Table, rows: Rows) -> int:
        """Return the number of selected rows in a table, or 0 if the table does not exist."""

    @abstractmethod
    def try_out(self, schema: str) -> None:
        """Create and drop a test table in a schema. Drop the schema, too, if it is new."""

    def cancel(self) -> None:  # noqa: B027
        """Cancel the operation in progress. This method runs in a different thread.

        The operation then raises an error in its thread. By default, the operation stops before the
        next frame.
        """


class TableConflictError(OctogenTableError):
    """Another run changed the same rows at the same time.

    This load changed nothing and can be retried.
    """

    persistence = Persistence.PASSING


class TableDestination(Settings, ABC):
    """A database, warehouse or lake that snapshots are loaded into.

    To add a custom destination, write a subclass. The fields of the subclass are its settings in
    Python and YAML. In YAML, a plain string sets the first field if all other fields have defaults.
    A connection to a SQL engine can extend `SQLConnection`.

    Attributes:
        kind: The engine's name in YAML and in the Dagster UI, such as `postgres`. For a built-in
            destination, the module and the extra have the same name.
        environment_fields: Fields that YAML accepts only as environment variables.
    """

    kind: ClassVar[str]
    environment_fields: ClassVar[tuple[str, ...]] = ()
    error = OctogenTableError

    @property
    def default_schema(self) -> str:
        """The default schema for tables."""
        return "octogen"

    @property
    @abstractmethod
    def place(self) -> str:
        """The engine and its location, such as `PostgreSQL (shop at db.example)`.

        The text is used in messages and metadata, so it never contains secrets.
        """

    @property
    @abstractmethod
    def pool(self) -> str:
        """The Dagster pool for all table assets that use this destination."""

    @property
    def secrets(self) -> Sequence[str]:
        """Values to mask in error messages.

        By default, these are the values of all fields with `repr=False`. If such a field contains
        options by name, only the secret options are masked.
        """
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
        """Return a context manager that opens a connection.

        Raises:
            OctogenTableError: The destination is unreachable or rejects the credentials.
        """

    def try_out(self) -> None:
        """Connect to the destination, then create and drop a test table.

        Raises:
            OctogenTableError: One of these steps failed.
        """
        with self.connect() as connection:
            connection.try_out(self.default_schema)


def refuse_written_secrets(options: dict[str, _Option]) -> dict[str, _Option]:
    """Raise an error if an option contains a secret that is not a `dagster.EnvVar`."""
    refuse_secrets({n: value for n, value in options.items() if not isinstance(value, dg.EnvVar)})
    return options


def pool_of(kind: str, name: str) -> str:
    """Return the name of the Dagster pool for a destination.

    The pool is named after the location, or after the environment variable that contains it.
    """
    text = name.env_var_name if isinstance(name, dg.EnvVar) else name
    words = re.findall(r"[A-Za-z0-9]+", text)
    return "_".join(["octogen", kind, *words])
