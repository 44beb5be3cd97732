"""build_table_asset: load snapshots into a database, warehouse or lake table."""

import threading
import time
import uuid
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import dagster as dg

from octogen_dagster.assets.definition import (
    RETRY_POLICY,
    asset_arguments_of,
    asset_key,
    octogen_asset,
    permanent_errors_fail,
    require_asset,
    takes_range,
)
from octogen_dagster.background import run_in_thread
from octogen_dagster.snapshots.asset_decorator import own_range
from octogen_dagster.snapshots.loading import Snapshots, snapshot_inputs
from octogen_dagster.snapshots.metadata import (
    COLUMN_SCHEMA,
    column_lineage,
    kind_of,
)
from octogen_dagster.snapshots.partitions import PartitionLayout
from octogen_dagster.snapshots.publication import PublishedSnapshot, PublishingStep
from octogen_dagster.snapshots.range_checks import partition_evaluations
from octogen_dagster.snapshots.range_run import report_range
from octogen_dagster.storage.store import SNAPSHOT_ID
from octogen_dagster.tables.columns import SourceColumn
from octogen_dagster.tables.destination import (
    Table,
    TableConnection,
    TableDestination,
)
from octogen_dagster.tables.load import Loaded, StoredRows, load
from octogen_dagster.tables.snapshot_table import SnapshotTable
from octogen_dagster.validation import did_you_mean, require_extras

ROWS_CHECK = "table_rows"
DESTINATIONS: WeakKeyDictionary[Any, TableDestination] = WeakKeyDictionary()
"""The destinations of table assets, keyed by op definition."""


def build_table_asset(
    snapshots: dg.AssetsDefinition,
    destination: TableDestination,
    schema: str | None = None,
    table: str | None = None,
    columns: Sequence[str] | None = None,
    *,
    name: str | dg.AssetSpec | None = None,
    **asset_arguments: Any,
) -> dg.AssetsDefinition:
    """Build an asset that loads another asset's snapshots into a table.

    Each snapshot replaces its partition's rows in one transaction. If the asset has no partitions,
    the snapshot replaces all rows. The rows of a changes asset accumulate instead. Each comparison
    of two snapshots is loaded once. If the table already contains the snapshot, no rows are sent.

    The table has the same columns as the snapshots, with a few additions and conversions. The
    column `partition` contains the Dagster partition, and a changes table also has the column
    `fetched_at`. Fields of `brand` and `rating` become columns such as `brand_name`. Other structs
    and lists become JSON, except in Iceberg and Delta. NUL characters are removed from text. If a
    later snapshot has new columns, they are added to the table. Columns are never dropped.

    A load record identifies the snapshot that was loaded. Load records are stored in the table
    `_octogen_loads` in the same schema. For Iceberg and Delta, they are stored in the table's
    commits. The check `table_rows` compares the row counts of the table and the snapshot.

    Args:
        snapshots: An asset stored by `ParquetSnapshotIOManager`. The table asset has the same
            partitions.
        destination: The database, warehouse or lake, such as
            `DuckDBTables(database="shop.duckdb")`.
        schema: The table's schema. It is created if it does not exist. Defaults to the dataset for
            `BigQueryTables`, and to `octogen` for all other destinations.
        table: The table's name. Defaults to the name of the `snapshots` asset.
        columns: Names of the columns to load. Defaults to all columns.
        name: The asset's name or `dagster.AssetSpec`. Defaults to `<snapshots>_table`.
        asset_arguments: Any other argument for `@dagster.asset`. By default, all table assets for a
            destination share a `pool`. For a DuckDB file, set the pool's limit to 1. Pass
            `automation_condition=follow_upstream()` to load each new snapshot.

    Raises:
        TypeError: `snapshots` is not an asset, or `destination` is not a `TableDestination`.
        ValueError: `columns` is empty or contains a column that the snapshots do not declare.
        MissingPackageError: The destination's driver is not installed.
    """
    require_asset(snapshots, "snapshots")
    if not isinstance(destination, TableDestination):
        raise TypeError(
            'destination must be a TableDestination, such as DuckDBTables(database="shop.duckdb"); '
            f"got {type(destination).__name__}."
        )
    require_extras("build_table_asset", destination.kind)
    _check_columns(snapshots, columns)
    given = asset_arguments_of(name or f"{snapshots.key.path[-1]}_table", asset_arguments)
    given |= own_range(given, snapshots)
    partitions_def = snapshots.partitions_def
    has_range = takes_range(given.get("backfill_policy"), partitions_def)
    table = table or snapshots.key.path[-1]
    has_times = PartitionLayout(partitions_def).times is not None
    known_schema = schema or destination.default_schema
    is_known = not isinstance(known_schema, dg.EnvVar)

    @octogen_asset(
        {
            "partitions_def": partitions_def,
            **snapshot_inputs(stored=snapshots),
            "pool": destination.pool,
            "kinds": {"octogen", destination.kind},
            "check_specs": [_check_spec(asset_key(given), partitions_def)],
            "metadata": {"dagster/table_name": f"{known_schema}.{table}"} if is_known else {},
            "description": f"Table that contains the {snapshots.key.to_user_string()} snapshots.",
            "retry_policy": RETRY_POLICY,
            **({"output_required": False} if has_range else {}),
        },
        given,
        takes_ranges=True,
    )
    def loaded_table(context: dg.AssetExecutionContext, stored: Snapshots) -> Iterator[Any]:
        stop = threading.Event()
        with permanent_errors_fail():
            resolved = destination.resolved()
            target_schema = schema or resolved.default_schema
            target = SnapshotTable(
                target_schema, table, snapshots.key, columns, has_times, kind_of(snapshots)
            )
        with permanent_errors_fail(), _connected(resolved, stop) as connection:
            run = _TableRun(context, target, resolved.place, connection, stored, stop)
            if has_range and not context.has_partition_key:
                yield from run.load_range()
            else:
                yield run.load_only(context.partition_key if partitions_def else None)

    DESTINATIONS[loaded_table.node_def] = destination
    return loaded_table


@dataclass(frozen=True)
class _TableRun:
    context: dg.AssetExecutionContext
    target: SnapshotTable
    place: str
    connection: TableConnection
    stored: Snapshots
    stop: threading.Event

    def load_only(self, partition: str | None) -> dg.MaterializeResult[Any]:
        """Load the run's only snapshot."""
        metadata, check = run_in_thread(lambda: self._load(partition), "octogen-table", self.stop)
        return dg.MaterializeResult(metadata=metadata, check_results=[check])

    def load_range(self) -> Iterator[Any]:
        """Load the snapshots for a range of partitions, and yield an event for each partition."""
        context, checks = self.context, dict[str, dg.AssetCheckResult]()

        def publish(partition: str, _note_read: Callable[[], None]) -> PublishedSnapshot:
            # `_note_read` is unused: one connection loads the partitions one after another.
            with permanent_errors_fail():
                metadata, checks[partition] = self._load(partition)
            return PublishedSnapshot(metadata, lambda: None)

        step = PublishingStep.of(context)
        for event in report_range(
            context,
            step,
            publish,
            self.stored.frame,
            service=None,
            stop=self.stop,
        ):
            yield event
            partition = event.partition if isinstance(event, dg.AssetMaterialization) else None
            if partition in checks:  # false if the retried run has already loaded the partition
                yield from partition_evaluations(
                    context.instance, context.asset_key, partition, [checks[partition]]
                )
        wrong = sorted(partition for partition, check in checks.items() if not check.passed)
        yield dg.AssetCheckResult(
            passed=not wrong,
            check_name=ROWS_CHECK,
            asset_key=context.asset_key,
            metadata={"octogen/partitions": len(checks), "octogen/wrong_partitions": len(wrong)},
        )

    def _load(self, partition: str | None) -> tuple[dict[str, Any], dg.AssetCheckResult]:
        began = time.monotonic()
        file = self.stored.file(partition)
        table, sources, rows = self.target.of(
            file,
            partition,
            self.stored.partition_column,
            has_nested=self.connection.has_nested,
        )
        stored = StoredRows(
            file.metadata.get(SNAPSHOT_ID) or uuid.uuid4().hex, file.row_count, file.batches
        )
        loaded = load(
            self.connection,
            table,
            rows,
            stored,
            sources=sources,
            run_id=self.context.run.run_id,
            stop=self.stop,
        )
        part = f" (partition {partition!r})" if partition is not None else ""
        self.context.log.info(
            f"Loaded {loaded.row_count:,} rows into {self.target.name}{part}."
            if loaded.is_new
            else f"{self.target.name} already contains this snapshot{part}. No rows were sent."
        )
        seconds = round(time.monotonic() - began, 3)
        return self._metadata(table, sources, loaded, partition, seconds), _check(loaded, stored)

    def _metadata(
        self,
        table: Table,
        sources: Sequence[SourceColumn],
        loaded: Loaded,
        partition: str | None,
        seconds: float,
    ) -> dict[str, Any]:
        row_count = "row_count" if partition is None else "partition_row_count"
        lineage = {each.column.name: [each.source] for each in sources if each.source}
        columns = [
            dg.TableColumn(
                column.name, column.type.name.lower(), description=column.description or None
            )
            for column in table.columns
        ]
        nul = {"octogen/texts_with_nul": loaded.texts_with_nul} if loaded.texts_with_nul else {}
        return {
            f"dagster/{row_count}": loaded.row_count,
            "octogen/seconds": seconds,
            "octogen/loaded": loaded.is_new,
            **nul,
            "octogen/destination": self.place,
            "dagster/table_name": self.target.name,
            COLUMN_SCHEMA: dg.TableSchema(columns),
            **column_lineage(self.target.snapshots, lineage),
        }


@contextmanager
def _connected(destination: TableDestination, stop: threading.Event) -> Iterator[TableConnection]:
    """Open a connection. If the run is stopped, cancel the operation in progress."""
    with destination.connect() as connection:

        def cancel() -> None:
            stop.wait()
            if not is_over.is_set():
                connection.cancel()

        is_over = threading.Event()
        threading.Thread(target=cancel, name="octogen-table-stop", daemon=True).start()
        try:
            yield connection
        finally:
            # Set first, or the thread would cancel a connection that is being closed.
            is_over.set()
            stop.set()


def _check(loaded: Loaded, stored: StoredRows) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        passed=loaded.row_count == stored.row_count,
        check_name=ROWS_CHECK,
        description=f"The table has {loaded.row_count:,} rows. The snapshot has "
        f"{stored.row_count:,} rows.",
        metadata={
            "octogen/rows_in_table": loaded.row_count,
            "octogen/rows_in_snapshot": stored.row_count,
        },
    )


def _check_spec(
    asset: dg.AssetKey, partitions_def: dg.PartitionsDefinition[Any] | None
) -> dg.AssetCheckSpec:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.PreviewWarning)  # partitioned checks are in preview
        return dg.AssetCheckSpec(
            ROWS_CHECK,
            asset=asset,
            description="The table and the snapshot have the same number of rows.",
            partitions_def=partitions_def,
        )


def _check_columns(snapshots: dg.AssetsDefinition, columns: Sequence[str] | None) -> None:
    """Raise an error if the asset's declared column schema does not contain the columns."""
    if columns is None:
        return
    if isinstance(columns, str) or not columns:
        raise ValueError(f"columns must be a non-empty list of column names; got {columns!r}.")
    metadata: Mapping[str, Any] = snapshots.metadata_by_key.get(snapshots.key, {})
    declared = metadata.get(COLUMN_SCHEMA)
    schema = getattr(declared, "schema", declared)
    known = [column.name for column in schema.columns] if schema else None
    for name in columns:
        if known is not None and name not in known:
            raise ValueError(
                f"`columns` contains {name!r}, which is not a column in "
                f"{snapshots.key.to_user_string()}.{did_you_mean(name, known)} Its columns are "
                f"{', '.join(known)}."
            )
