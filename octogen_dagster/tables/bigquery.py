"""BigQueryTables: tables in a BigQuery dataset."""

from __future__ import annotations

import re
import tempfile
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from octogen_dagster.errors import OctogenBigQueryError, OctogenTableError
from octogen_dagster.sharing.google_errors import BIGQUERY, translate_google_errors
from octogen_dagster.tables.destination import (
    Column,
    ColumnType,
    Table,
    TableConflictError,
    TableDestination,
    pool_of,
)
from octogen_dagster.tables.sql import SQLConnection

if TYPE_CHECKING:
    import polars as pl
    from google.cloud.bigquery import QueryJob

_STAGED_FOR = timedelta(days=1)
"""The age at which BigQuery deletes staging tables that a killed run left behind."""
_CONFLICT = re.compile(r"concurrent update|Could not serialize access")
_LABELS = {"octogen": "tables"}


class BigQueryTables(TableDestination):
    """Tables in a BigQuery dataset, accessed with Application Default Credentials.

    A load job, which is free, writes the rows to a staging table. A script then moves the rows into
    the table in one transaction. Google bills you for the bytes that this script reads. BigQuery
    rejects a script that would exceed `max_bytes_billed`, and does not charge for it.
    """

    kind: ClassVar[str] = "bigquery"

    project: str = Field(
        description="Google Cloud project that contains the dataset and is billed for queries."
    )
    dataset: str = Field(
        default="octogen",
        description="Dataset for the tables. It is created if it does not exist.",
    )
    location: str | None = Field(
        default=None, description="Dataset location, such as EU. Defaults to US."
    )
    max_bytes_billed: int | None = Field(
        default=100_000_000_000,
        gt=0,
        description="Maximum bytes billed for a script or query. None removes the limit.",
    )

    @property
    def default_schema(self) -> str:
        return self.dataset

    @property
    def place(self) -> str:
        return f"BigQuery ({self.project})"

    @property
    def pool(self) -> str:
        return pool_of(self.kind, self.project)

    @contextmanager
    def connect(self) -> Iterator[BigQueryConnection]:
        limit = self.max_bytes_billed
        with closing(
            BigQueryConnection(self.place, self.project, self.location, limit)
        ) as connection:
            yield connection


class BigQueryConnection(SQLConnection):
    """A BigQuery connection. Rows are staged in a table with an expiration time."""

    types: ClassVar = {
        ColumnType.TEXT: "STRING",
        ColumnType.INTEGER: "INT64",
        ColumnType.FLOAT: "FLOAT64",
        ColumnType.DECIMAL: "NUMERIC",
        ColumnType.BOOLEAN: "BOOL",
        ColumnType.DATE: "DATE",
        ColumnType.TIME: "TIME",
        ColumnType.TIMESTAMP: "TIMESTAMP",
        ColumnType.LOCAL_TIMESTAMP: "DATETIME",
        ColumnType.BINARY: "BYTES",
        ColumnType.JSON: "JSON",
    }
    reported: ClassVar = {
        **{name.lower(): kind for kind, name in types.items()},
        "integer": ColumnType.INTEGER,
        "float": ColumnType.FLOAT,
        "boolean": ColumnType.BOOLEAN,
    }
    escapes: ClassVar = {"'": "\\'", "\\": "\\\\", "\n": "\\n", "\r": "\\r"}
    json = "PARSE_JSON({}, wide_number_mode => 'round')"

    def __init__(
        self, place: str, project: str, location: str | None, max_bytes_billed: int | None
    ) -> None:
        super().__init__()
        self._place = place
        self._project, self._location = project, location
        self._max_bytes_billed = max_bytes_billed
        self._script: list[str] | None = None
        self._job: QueryJob | None = None
        self._stage: Any = None
        with self._explained():
            from google.cloud.bigquery import Client

            self._client = Client(project=project, location=location)

    def close(self) -> None:
        with suppress(OctogenTableError):  # the staging table expires anyway
            self._drop_stage()
        self._client.close()  # type: ignore[no-untyped-call]  # untyped in the library

    def execute(self, sql: str) -> None:
        if self._script is None:
            self.query(sql)
        else:
            self._script.append(sql)

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        from google.cloud.bigquery import QueryJobConfig

        config = QueryJobConfig(labels=_LABELS)
        if self._max_bytes_billed is not None:
            config.maximum_bytes_billed = self._max_bytes_billed
        with self._explained():
            self._job = self._client.query(sql, job_config=config)
            return [tuple(row.values()) for row in self._job.result()]

    @contextmanager
    def transaction(self) -> Iterator[None]:
        # Without a session, a transaction cannot span jobs, so its statements form one script.
        self._script = []
        try:
            yield
            statements = ["BEGIN TRANSACTION", *self._script, "COMMIT TRANSACTION"]
        finally:
            self._script = None
        self.query(";\n".join([*statements, ""]))

    def columns(self, table: Table) -> Mapping[str, ColumnType | None]:
        from google.api_core.exceptions import NotFound

        columns: dict[str, ColumnType | None] = {}
        with self._explained(), suppress(NotFound):
            found = self._client.get_table(self._reference(table.schema, table.name))
            columns = {
                # A parameterized NUMERIC would round values to its scale.
                field.name: self.reported.get(field.field_type.lower())
                if field.precision is None
                else None
                for field in found.schema
            }
        self._known[table.schema, table.name] = columns
        return columns

    def has_schema(self, schema: str) -> bool:
        from google.api_core.exceptions import NotFound

        with self._explained(), suppress(NotFound):
            self._client.get_dataset(f"{self._project}.{schema}")
            return True
        return False

    def create_schema(self, schema: str) -> None:
        from google.cloud.bigquery import Dataset

        with self._explained():
            dataset = Dataset(f"{self._project}.{schema}")
            dataset.location = self._location
            self._client.create_dataset(dataset, exists_ok=True)

    def create_table(self, table: Table) -> list[str]:
        (create,) = super().create_table(table)
        if "PRIMARY KEY" in create:
            create = f"{create.removesuffix(')')} NOT ENFORCED)"
        if table.parts:
            create += f" CLUSTER BY {', '.join(map(self.quoted, table.parts))}"
        return [f"{create} OPTIONS (description = {self.literal(table.description)})"]

    def declaration(self, column: Column) -> str:
        description = self.literal(column.description)
        return f"{super().declaration(column)} OPTIONS (description = {description})"

    def comments(self, _table: Table, _columns: Sequence[Column]) -> list[str]:
        return []  # included in the definitions

    def schema(self, name: str) -> str:
        return f"{self.quoted(self._project)}.{self.quoted(name)}"

    def quoted(self, name: str) -> str:
        return "`" + name.replace("\\", "\\\\").replace("`", "\\`") + "`"

    def stage(self, table: Table, frames: Iterable[pl.DataFrame]) -> None:
        from google.cloud import bigquery

        self._drop_stage()
        with tempfile.TemporaryFile() as file:
            _write(frames, file)
            size = file.tell()
            file.seek(0)
            self.create_schema(table.schema)
            name = f"_octogen_stage_{uuid.uuid4().hex}"
            fields = [
                bigquery.SchemaField(
                    column.name,
                    self.types[ColumnType.TEXT if column.type is ColumnType.JSON else column.type],
                )
                for column in table.columns
            ]
            stage = bigquery.Table(self._reference(table.schema, name), schema=fields)
            stage.expires = datetime.now(UTC) + _STAGED_FOR
            config = bigquery.LoadJobConfig(
                source_format=bigquery.SourceFormat.PARQUET,
                write_disposition=bigquery.WriteDisposition.WRITE_APPEND,
                labels=_LABELS,
            )
            with self._explained():
                self._stage = self._client.create_table(stage)
                self.staged = f"{self.schema(table.schema)}.{self.quoted(name)}"
                self._client.load_table_from_file(
                    file, stage.reference, size=size, job_config=config
                ).result()

    def cancel(self) -> None:
        if self._job is not None:
            with suppress(Exception):  # it might have just finished
                self._job.cancel()

    def _drop_stage(self) -> None:
        if self._stage is not None:
            with self._explained():
                self._client.delete_table(self._stage, not_found_ok=True)
            self._stage = None

    def _reference(self, schema: str, name: str) -> str:
        return f"{self._project}.{schema}.{name}"

    @contextmanager
    def _explained(self) -> Iterator[None]:
        from google.api_core.exceptions import GoogleAPICallError

        try:
            with translate_google_errors(BIGQUERY, self._place):
                try:
                    yield
                except GoogleAPICallError as error:
                    if _CONFLICT.search(str(error)):
                        raise TableConflictError(
                            f"Another run changed the same rows in {self._place} at the same time."
                        ) from None
                    raise
        except OctogenBigQueryError as error:
            raise OctogenTableError(str(error), error.persistence) from error


def _write(frames: Iterable[pl.DataFrame], file: Any) -> None:
    import polars as pl
    import pyarrow.parquet as pq

    writer = None
    for frame in frames:
        arrow = frame.to_arrow(compat_level=pl.CompatLevel.oldest())
        writer = writer or pq.ParquetWriter(file, arrow.schema, compression="zstd")
        writer.write_table(arrow)
    assert writer is not None
    writer.close()
