"""DeltaTables: Delta tables in a folder or bucket."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from itertools import chain
from typing import TYPE_CHECKING, Any, ClassVar

import dagster as dg
from pydantic import Field, field_validator

from octogen_dagster.tables.destination import (
    Load,
    Rows,
    Table,
    TableDestination,
    pool_of,
    refuse_written_secrets,
)
from octogen_dagster.tables.lake import LakeConnection, partition_columns

if TYPE_CHECKING:
    import polars as pl

_CONFLICTS = ("Failed to commit transaction: ", "Tried committing existing table version: ")


class DeltaTables(TableDestination):
    """Delta tables in a folder or bucket. Their path is `<base_dir>/<schema>/<table>`."""

    kind: ClassVar[str] = "delta"

    base_dir: str = Field(
        description="Folder, s3://bucket/prefix, gs://bucket/prefix or az://container/prefix."
    )
    storage_options: dict[str, Any] = Field(
        default_factory=dict,
        repr=False,
        description="Object store options. ParquetSnapshotIOManager accepts the same options. Pass "
        "each secret as a dagster.EnvVar.",
    )

    _refuse_secrets = field_validator("storage_options")(refuse_written_secrets)

    @field_validator("base_dir")
    @classmethod
    def _check_base_dir(cls, base_dir: str) -> str:
        from octogen_dagster.storage.store import check_base_dir

        if not isinstance(base_dir, dg.EnvVar):
            check_base_dir(base_dir)
        return base_dir

    @property
    def place(self) -> str:
        return f"Delta ({self.base_dir})"

    @property
    def pool(self) -> str:
        return pool_of(self.kind, self.base_dir)

    @contextmanager
    def connect(self) -> Iterator[DeltaConnection]:
        from octogen_dagster.storage.store import check_base_dir

        check_base_dir(self.base_dir)
        yield DeltaConnection(self.place, self.base_dir, self.storage_options, self.secrets)


class DeltaConnection(LakeConnection):
    """A connection to Delta tables. Load records are stored as Delta transaction versions."""

    def __init__(
        self, place: str, base_dir: str, options: dict[str, Any], secrets: Sequence[str]
    ) -> None:
        super().__init__(place, options, secrets)
        self._base_dir = base_dir.rstrip("/")

    def open(self, table: Table) -> Any:
        from deltalake import DeltaTable
        from deltalake.exceptions import TableNotFoundError

        with suppress(TableNotFoundError):
            return DeltaTable(self._uri(table), storage_options=self.settings)
        return None

    def schema(self, opened: Any) -> pl.Schema:
        import polars as pl

        return pl.Schema(opened.schema())

    def has_record(self, opened: Any, part: str, load: Load) -> bool:
        return bool(opened.transaction_version(_app_id(part)) == _transaction_version(load))

    def count_rows(self, opened: Any, rows: Rows) -> int:
        from deltalake import QueryBuilder

        where = f" WHERE {_predicate(rows)}" if rows else ""
        query = QueryBuilder().register("opened", opened)
        found = query.execute(f"SELECT count(*) AS number FROM opened{where}").read_all()
        return int(found["number"][0].as_py())

    def write(
        self, table: Table, rows: Rows, frames: Iterator[pl.DataFrame], part: str, load: Load
    ) -> None:
        from arro3.core import RecordBatchReader
        from arro3.core import Table as ArrowTable
        from deltalake import CommitProperties, Transaction, write_deltalake

        first = next(frames)
        known = self.known(table)
        schema = ArrowTable.from_arrow(first).schema
        for place, column in enumerate(table.columns):
            if column.name not in known and column.description:
                described = schema.field(place).with_metadata({"comment": column.description})
                schema = schema.set(place, described)
        opened = self.opened(table) or self._created(table, rows, schema)
        tables = (ArrowTable.from_arrow(frame) for frame in chain([first], frames))
        batches = (batch.with_schema(schema) for each in tables for batch in each.to_batches())
        write_deltalake(
            opened,
            RecordBatchReader.from_batches(schema, batches),
            mode="overwrite",
            schema_mode="merge",
            predicate=_predicate(rows) or None,
            commit_properties=CommitProperties(
                custom_metadata={f"octogen.{name}": str(v) for name, v in load._asdict().items()},
                app_transactions=[Transaction(_app_id(part), _transaction_version(load))],
            ),
        )

    def is_conflict(self, error: Exception) -> bool:
        from deltalake.exceptions import CommitFailedError

        # Store failures and append-only tables raise the same class.
        return isinstance(error, CommitFailedError) and str(error).startswith(_CONFLICTS)

    def try_out(self, schema: str) -> None:
        import polars as pl
        from deltalake import write_deltalake

        from octogen_dagster.storage.store import Store

        probe = f"{schema}/_octogen_probe_{uuid.uuid4().hex}"
        with self.explained():
            store = Store(self._base_dir, self.settings)
            is_new = not store.files(schema)
            try:
                rows = pl.DataFrame({"probe": [1]})
                write_deltalake(f"{self._base_dir}/{probe}", rows, storage_options=self.settings)
            finally:
                written = [each.key for each in store.files(probe)]
                store.delete(written, folder=schema if is_new else probe)

    def _created(self, table: Table, rows: Rows, schema: Any) -> Any:
        from deltalake import DeltaTable, Schema
        from deltalake.exceptions import DeltaError

        try:
            return DeltaTable.create(
                self._uri(table),
                Schema.from_arrow(schema),
                partition_by=partition_columns(rows),
                description=table.description,
                storage_options=self.settings,
            )
        except DeltaError:
            if self.open(table) is None:
                raise
            raise self.conflict() from None  # another run has just created it

    def _uri(self, table: Table) -> str:
        return f"{self._base_dir}/{table.schema}/{table.name}"


def _app_id(part: str) -> str:
    return f"octogen-dagster/{part}"


def _transaction_version(load: Load) -> int:
    digest = hashlib.blake2b(load.snapshot_id.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def _predicate(rows: Rows) -> str:
    return " AND ".join(f'"{name}" = {_literal(value)}' for name, value in rows.items())


def _literal(value: str | int | datetime) -> str:
    if isinstance(value, datetime):
        return f"arrow_cast('{value.isoformat()}', 'Timestamp(Microsecond, Some(\"UTC\"))')"
    return str(value) if isinstance(value, int) else "'{}'".format(value.replace("'", "''"))
