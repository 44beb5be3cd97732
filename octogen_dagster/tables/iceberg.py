"""IcebergTables: Apache Iceberg tables."""

from __future__ import annotations

import uuid
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import dagster as dg
from pydantic import Field, field_validator

from octogen_dagster.masking import has_url_secret
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


class IcebergTables(TableDestination):
    """Apache Iceberg tables in a folder or in any catalog that pyiceberg supports.

    If the warehouse is a folder, a SQLite catalog is created inside it. To use another catalog, set
    pyiceberg properties in `properties`, in `.pyiceberg.yaml` or in environment variables.
    """

    kind: ClassVar[str] = "iceberg"

    warehouse: str | None = Field(default=None, description="Folder, bucket URL or warehouse name.")
    catalog: str = Field(
        default="octogen", description="Name of the catalog in the pyiceberg configuration."
    )
    properties: dict[str, Any] = Field(
        default_factory=dict,
        repr=False,
        description="pyiceberg properties for the catalog and the file storage, such as uri. Pass "
        "each secret as a dagster.EnvVar.",
    )

    _refuse_secrets = field_validator("properties")(refuse_written_secrets)

    @field_validator("warehouse")
    @classmethod
    def _check_warehouse(cls, warehouse: str | None) -> str | None:
        if warehouse is None or isinstance(warehouse, dg.EnvVar):
            return warehouse
        # For an empty string, pyiceberg would use the warehouse in its configuration.
        if not warehouse.strip() or warehouse.endswith("://"):
            raise ValueError("warehouse is empty: set a folder or s3://bucket/..., or omit it")
        if has_url_secret(warehouse):
            raise ValueError(
                "warehouse has a secret in its URL, which Dagster would show: move the secret to "
                "`properties` as a dagster.EnvVar"
            )
        return warehouse

    @property
    def place(self) -> str:
        return f"Iceberg ({self.warehouse or self.catalog})"

    @property
    def pool(self) -> str:
        return pool_of(self.kind, self.warehouse or self.catalog)

    @contextmanager
    def connect(self) -> Iterator[IcebergConnection]:
        given = dict(self.properties)
        if self.warehouse:
            given["warehouse"] = self.warehouse
            if "://" not in self.warehouse and "uri" not in given:
                folder = Path(self.warehouse).resolve()
                folder.mkdir(parents=True, exist_ok=True)
                given |= {"uri": f"sqlite:///{folder}/catalog.sqlite", "warehouse": folder.as_uri()}
        yield IcebergConnection(self.place, self.catalog, given, self.secrets)


class IcebergConnection(LakeConnection):
    """A connection to an Iceberg catalog. Load records are stored in snapshot summaries."""

    def __init__(
        self, place: str, catalog: str, settings: dict[str, Any], secrets: Sequence[str]
    ) -> None:
        super().__init__(place, settings, secrets)
        with self.explained():
            from pyiceberg.catalog import load_catalog
            from sqlalchemy.exc import DBAPIError

            try:
                self._catalog = load_catalog(catalog, **self.settings)
            except DBAPIError:  # another run has just created the catalog's tables
                self._catalog = load_catalog(catalog, **self.settings)

    def open(self, table: Table) -> Any:
        from pyiceberg.exceptions import NoSuchNamespaceError, NoSuchTableError

        with suppress(NoSuchNamespaceError, NoSuchTableError):
            return self._catalog.load_table((table.schema, table.name))
        return None

    def schema(self, opened: Any) -> pl.Schema:
        import polars as pl

        return pl.DataFrame(opened.schema().as_arrow().empty_table()).schema

    def has_record(self, opened: Any, part: str, load: Load) -> bool:
        from pyiceberg.table.snapshots import ancestors_of

        for snapshot in ancestors_of(opened.current_snapshot(), opened.metadata):
            if snapshot.summary and snapshot.summary.get("octogen.part") == part:
                return bool(snapshot.summary["octogen.snapshot_id"] == load.snapshot_id)
        return False

    def count_rows(self, opened: Any, rows: Rows) -> int:
        return int(opened.scan(row_filter=_filter(rows)).count())

    def write(
        self, table: Table, rows: Rows, frames: Iterator[pl.DataFrame], part: str, load: Load
    ) -> None:
        from polars.io.plugins import register_io_source

        first = next(frames)
        opened = self._completed(table, rows, first)
        source = register_io_source(lambda *_: chain([first], frames), schema=first.schema)
        record = {f"octogen.{name}": str(value) for name, value in load._asdict().items()}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about an overwrite filter without matches
            source.sink_iceberg(
                opened,
                mode="overwrite",
                schema_mode="merge",
                overwrite_filter=_filter(rows),
                snapshot_properties={"octogen.part": part, **record},
                # FileIO properties, including vended credentials, contain a dot.
                storage_options={n: v for n, v in opened.io.properties.items() if "." in n},
            )

    def is_conflict(self, error: Exception) -> bool:
        from pyiceberg.exceptions import CommitFailedException, ValidationException
        from sqlalchemy.exc import IntegrityError, OperationalError

        if isinstance(error, OperationalError):
            return getattr(error.orig, "sqlite_errorname", "").startswith("SQLITE_BUSY")
        # A database catalog rejects a namespace that another run has just created.
        return isinstance(error, (CommitFailedException, ValidationException, IntegrityError))

    def try_out(self, schema: str) -> None:
        import pyarrow as pa

        with self.explained():
            is_new = not self._catalog.namespace_exists(schema)
            self._catalog.create_namespace_if_not_exists(schema)
            probe = (schema, f"_octogen_probe_{uuid.uuid4().hex}")
            self._catalog.create_table(probe, pa.schema([("probe", pa.int64())]))
            self._catalog.purge_table(probe)
            if is_new:
                self._catalog.drop_namespace(schema)

    def _completed(self, table: Table, rows: Rows, frame: pl.DataFrame) -> Any:
        """Open or create the table, and add missing columns."""
        import polars as pl
        import pyarrow as pa

        opened, known = self.opened(table), self.known(table)
        fields = frame.to_arrow(compat_level=pl.CompatLevel.oldest()).schema
        new = pa.schema(
            field.with_metadata({"doc": column.description} if column.description else None)
            for field, column in zip(fields, table.columns, strict=True)
            if column.name not in known
        )
        if opened is None:
            opened = self._created(table, rows, new)
        elif new:
            with opened.update_schema() as update:
                update.union_by_name(new)
        return opened

    def _created(self, table: Table, rows: Rows, columns: Any) -> Any:
        from pyiceberg.exceptions import TableAlreadyExistsError

        name = (table.schema, table.name)
        properties = {"comment": table.description, "commit.manifest-merge.enabled": "true"}
        self._catalog.create_namespace_if_not_exists(table.schema)
        try:
            with (
                self._catalog.create_table_transaction(
                    name, columns, properties=properties
                ) as making,
                making.update_spec() as spec,
            ):
                for column_name in partition_columns(rows):
                    spec.add_identity(column_name)
        except TableAlreadyExistsError:
            if self.open(table) is None:
                raise
            raise self.conflict() from None  # another run has just created it
        return self._catalog.load_table(name)


def _filter(rows: Rows) -> Any:
    from pyiceberg.expressions import AlwaysTrue, And, EqualTo

    found: Any = AlwaysTrue()
    for name, value in rows.items():
        text = value.isoformat() if isinstance(value, datetime) else value
        found = And(found, EqualTo(name, text))  # type: ignore[call-arg]
    return found
