"""ParquetSnapshotIOManager: one Parquet file for each asset or partition, whole or not there."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any, get_args, get_origin

import dagster as dg
import polars as pl
from pydantic import Field, PrivateAttr

from octogen_dagster.asset_defaults import Metadata
from octogen_dagster.errors import OctogenPastPartitionError, OctogenSnapshotError
from octogen_dagster.frames.changes import SnapshotPair
from octogen_dagster.frames.details.rows import ROW_GROUP_SIZE as DETAIL_ROWS
from octogen_dagster.frames.details.scan import DetailScan
from octogen_dagster.frames.details.schema import DETAIL_SCHEMA_VERSION
from octogen_dagster.frames.pages.store import RESUME_WITHIN, PageStore
from octogen_dagster.frames.scan import ProductScan
from octogen_dagster.frames.schema import SCHEMA_VERSION
from octogen_dagster.snapshots.details import detail_metadata
from octogen_dagster.snapshots.metadata import (
    PREVIEW_ROWS,
    column_schema,
    preview,
    scan_metadata,
)
from octogen_dagster.snapshots.partitions import MAX_TIMES_BACK, SnapshotPartitions, path_component
from octogen_dagster.snapshots.snapshot_files import (
    ROW_GROUP_SIZE,
    SnapshotFile,
    storage_path,
    write_parquet,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from upath import UPath

# A frame of more partitions than this reads them by name, within the limit of open files.
MAX_OPEN_FILES = 256
ALLOW_MISSING = "allow_missing_partitions"


class ParquetSnapshotIOManager(dg.ConfigurableIOManager):
    """Stores frames as Parquet snapshots and loads them.

    An asset may return a `polars.LazyFrame` (streamed), a `polars.DataFrame`, the `ProductScan` of
    `OctogenResource.scan` or a `DetailScan`. The file is written beside its place, its footer is
    read back, and only then does it replace the previous snapshot. An asset `a/b` is
    `<base_dir>/a/b.parquet`, its partition `k` is `<base_dir>/a/b/k.parquet`; characters that a
    path would choke on are percent-encoded.

    The pages of a `ProductScan` are saved beside the snapshot as they come: a run that dies is
    continued by the next one of the same partition. They are removed when the snapshot is
    published, or kept (`keep_pages`). Of a `ProductScan` without partitions of time the snapshot
    before is kept until the next is published.

    An input may be annotated `pl.DataFrame`, `pl.LazyFrame`, or `dict[str, ...]` of either, which
    has an entry for each partition key. The partition of the same key is loaded as it was stored;
    an input of any other partitions, be it one, becomes one frame with the key in the column
    `partition_column`. A partition without a snapshot is an error unless the input's metadata says
    `allow_missing_partitions`. `SnapshotPair` is the snapshot of the run's own partition with the
    last one of the 31 times before, or with the one that was published before.
    """

    base_dir: str = Field(description="A folder, gs://bucket/prefix or s3://bucket/prefix.")
    storage_options: dict[str, Any] = Field(
        default_factory=dict, description="Options for the object store's fsspec file system."
    )
    partition_column: str = Field(
        default="partition", description="The column that tells partitions in one frame apart."
    )
    keep_pages: bool = Field(
        default=False,
        description="Keep the service's pages beside each snapshot, compressed, so that a past day "
        "can be rebuilt from them.",
    )
    resume_within_hours: float = Field(
        default=RESUME_WITHIN / timedelta(hours=1),
        ge=0,
        description="How long ago a read may have begun that a later run continues; 0 for never.",
    )
    _base: Any = PrivateAttr(default=None)

    def handle_output(self, context: dg.OutputContext, obj: Any) -> None:
        """Publish a snapshot and report on it.

        Raises:
            OctogenSnapshotError: The place cannot be written to, or the read was not complete.
            TypeError: The asset returned something else than a frame or a scan.
        """
        scan = obj if isinstance(obj, ProductScan | DetailScan) else None
        frame = scan.frame if scan else obj
        if isinstance(frame, pl.DataFrame):
            frame = frame.lazy()
        if not isinstance(frame, pl.LazyFrame):
            raise TypeError(
                f"Asset {context.asset_key.to_user_string()} returned {type(obj).__name__}: a "
                "snapshot is made of a polars LazyFrame, a DataFrame or OctogenResource.scan(...)."
            )
        partition = context.partition_key if context.has_asset_partitions else None
        file = SnapshotFile(self._path(context, partition))
        if isinstance(scan, ProductScan):
            store = PageStore(
                file.beside(".pages"),
                keep=self.keep_pages,
                resume_within=timedelta(hours=self.resume_within_hours),
            )
            scan.save_pages(store, context.log.info)
        elif scan and scan.only_changed:
            try:
                scan.previous = self._latest(context, file)
            except OctogenSnapshotError as error:
                context.log.warning(f"{error} Every product is looked up.")
        try:
            metadata = self._write(context, file, frame, scan)
            if isinstance(scan, ProductScan):
                _attempt(context, "Saved pages could not be removed.", scan.published)
        except OctogenPastPartitionError as error:
            raise dg.Failure(str(error), allow_retries=False) from error
        finally:
            if isinstance(scan, ProductScan):
                scan.let_go()
        context.add_output_metadata(metadata)

    def _write(
        self,
        context: dg.OutputContext,
        file: SnapshotFile,
        frame: pl.LazyFrame,
        scan: ProductScan | DetailScan | None,
    ) -> Metadata:
        with file.unfinished() as unfinished:
            rows = write_parquet(
                frame,
                unfinished,
                metadata=lambda: self._provenance(context, scan),
                stop=scan.stop if scan else None,
                row_group_size=DETAIL_ROWS if isinstance(scan, DetailScan) else ROW_GROUP_SIZE,
            )
            if scan and (not scan.statistics.complete or rows != scan.statistics.rows):
                raise OctogenSnapshotError(
                    f"The snapshot {file.uri} is not complete: {rows} rows were written of "
                    f"{scan.statistics.rows} read. Nothing was published; run it again."
                )
            written = pl.scan_parquet(unfinished, glob=False)
            row_count = "row_count" if not context.has_asset_partitions else "partition_row_count"
            metadata: Metadata = {
                f"dagster/{row_count}": rows,
                "dagster/column_schema": column_schema(written.collect_schema()),
                "dagster/uri": file.uri,
                "octogen/file_size_bytes": unfinished.stat().st_size,
                "octogen/preview": dg.MetadataValue.md(
                    preview(written.head(PREVIEW_ROWS).collect())
                ),
            }
            if isinstance(scan, ProductScan):
                metadata |= scan_metadata(scan, written)
            elif scan:
                metadata |= detail_metadata(scan, written)
            keep_previous = None
            if isinstance(scan, ProductScan):
                keep_previous = self._replaces(context, file, scan)
                _attempt(context, "The pages could not be kept.", scan.land)
            file.publish(unfinished, keep_previous=keep_previous)
        return metadata

    def load_input(self, context: dg.InputContext) -> Any:
        """Load what the input's annotation asks for.

        Raises:
            OctogenSnapshotError: A snapshot is not there.
        """
        wanted = context.dagster_type.typing_type
        if wanted is SnapshotPair:
            return self._load_pair(context)
        if not context.has_asset_partitions:
            return _as(wanted, self._load(context, None))
        keys = self._present(context)
        pinned = len(keys) <= MAX_OPEN_FILES
        files = {key: self._load(context, key, pinned=pinned) for key in keys}
        if get_origin(wanted) in (dict, Mapping):
            return {key: _as(get_args(wanted)[1], frame) for key, frame in files.items()}
        if context.has_partition_key and keys == [context.partition_key]:
            return _as(wanted, next(iter(files.values())))
        if not files:
            raise OctogenSnapshotError(
                f"No partition of {context.asset_key.to_user_string()} has a snapshot yet: "
                "materialize one first."
            )
        column = self.partition_column
        if any(column in frame.collect_schema() for frame in files.values()):
            raise OctogenSnapshotError(
                f"{context.asset_key.to_user_string()} has a column {column!r} of its own: give "
                "the IO manager another partition_column, or load the partitions as a dict."
            )
        frames = [frame.with_columns(pl.lit(key).alias(column)) for key, frame in files.items()]
        return _as(wanted, pl.concat(frames, how="diagonal"))

    def _replaces(
        self, context: dg.OutputContext, file: SnapshotFile, scan: ProductScan
    ) -> bool | None:
        """Whether the snapshot that is there becomes the one before; None where it never does.

        Raises:
            OctogenSnapshotError: It is newer than the landed pages of a rebuild.
        """
        try:
            there = file.provenance()
        except OctogenSnapshotError as error:
            context.log.warning(f"{error} It is replaced now.")
            there = {}
        fetched_at = scan.statistics.started_at.isoformat()
        if scan.statistics.rebuilt and there.get("octogen.fetched_at", "") > fetched_at:
            raise OctogenSnapshotError(
                f"The snapshot {file.uri} was read at {there['octogen.fetched_at']}, and the pages "
                f"that are landed are older, of {fetched_at}: a rebuild would lose what is there. "
                "Nothing was changed."
            )
        if _has_times(context):
            return None
        return bool(there) and _was_reported(context, there.get("octogen.run_id"))

    def _latest(self, context: dg.OutputContext, file: SnapshotFile) -> pl.LazyFrame | None:
        """The snapshot that is there, or else the last one of a time before."""
        if not file.exists() and _has_times(context):
            before = self._before(context)
            if before is None:
                return None
            file = SnapshotFile(self._path(context, before))
        return file.scan() if file.exists() else None

    def _before(self, context: dg.InputContext | dg.OutputContext) -> str | None:
        """The last partition of a time before that has a snapshot."""
        partitions = SnapshotPartitions(context.asset_partitions_def)
        before = partitions.before(context.partition_key)
        for _ in range(MAX_TIMES_BACK):
            if before is None or SnapshotFile(self._path(context, before)).exists():
                return before
            before = partitions.before(before)
        return None

    def _load_pair(self, context: dg.InputContext) -> SnapshotPair:
        """The snapshot of the run's own partition, and the one of a time before or the last one."""
        partition = context.partition_key if context.has_asset_partitions else None
        before = None
        file: SnapshotFile | None = SnapshotFile(self._path(context, partition)).previous
        if _has_times(context):
            before = self._before(context)
            file = SnapshotFile(self._path(context, before)) if before is not None else None
        # In this order: one that is published in between makes the pair wider, never empty.
        previous = file.scan() if file and file.exists() else None
        return SnapshotPair(self._load(context, partition), previous, before)

    def _present(self, context: dg.InputContext) -> list[str]:
        keys = list(context.asset_partition_keys)
        if not (context.definition_metadata or {}).get(ALLOW_MISSING):
            return keys
        return [key for key in keys if SnapshotFile(self._path(context, key)).exists()]

    def _load(
        self, context: dg.InputContext, partition: str | None, *, pinned: bool = True
    ) -> pl.LazyFrame:
        file = SnapshotFile(self._path(context, partition))
        if not file.exists():
            of = f", partition {partition!r}" if partition is not None else ""
            raise OctogenSnapshotError(
                f"The snapshot of {context.asset_key.to_user_string()}{of} is not there "
                f"({file.uri}): materialize it first."
            )
        return file.scan(pinned=pinned)

    def _path(self, context: dg.InputContext | dg.OutputContext, partition: str | None) -> UPath:
        if self._base is None:
            self._base = storage_path(self.base_dir, self.storage_options)
        parts = list(context.asset_key.path)
        if isinstance(partition, dg.MultiPartitionKey):
            parts += [key for _, key in sorted(partition.keys_by_dimension.items())]
        elif partition is not None:
            parts.append(partition)
        *folders, name = (path_component(part) for part in parts)
        path: UPath = self._base.joinpath(*folders, f"{name}.parquet")
        return path

    def _provenance(
        self, context: dg.OutputContext, scan: ProductScan | DetailScan | None
    ) -> dict[str, str]:
        provenance = {
            "octogen.asset_key": context.asset_key.to_user_string(),
        }
        with contextlib.suppress(dg.DagsterInvariantViolationError):  # a context made for a test
            provenance["octogen.run_id"] = context.run_id
        if context.has_asset_partitions:
            provenance["octogen.partition_key"] = context.partition_key
        if scan is not None:
            provenance["octogen.fetched_at"] = scan.statistics.started_at.isoformat()
        if isinstance(scan, DetailScan):
            provenance["octogen.schema_version"] = str(DETAIL_SCHEMA_VERSION)
        elif scan is not None:
            provenance["octogen.schema_version"] = str(SCHEMA_VERSION)
            provenance["octogen.search"] = json.dumps(
                scan.search.model_dump(mode="json", exclude_none=True), sort_keys=True
            )
        return provenance


def _attempt(context: dg.OutputContext, what: str, work: Callable[[], None]) -> None:
    """Do what may fail in any way, as an object store does: the snapshot is whole all the same."""
    try:
        work()
    except Exception as error:
        context.log.warning(f"{what} {error}")


def _was_reported(context: dg.OutputContext, run_id: str | None) -> bool:
    """Whether the run that published a snapshot also materialized it, and did not die in between.

    Of a run that the instance does not know, nobody can say that it did not.
    """
    try:
        instance = context.step_context.instance
    except dg.DagsterInvariantViolationError:  # a context made for a test
        return True
    if run_id is None or not instance.has_run(run_id):
        return True
    partition = context.partition_key if context.has_asset_partitions else None
    materialized = instance.all_logs(run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION)
    events = [entry.get_dagster_event() for entry in materialized]
    return any(
        (each.asset_key, each.partition) == (context.asset_key, partition) for each in events
    )


def _has_times(context: dg.InputContext | dg.OutputContext) -> bool:
    if not context.has_asset_partitions:
        return False
    return SnapshotPartitions(context.asset_partitions_def).times is not None


def _as(wanted: Any, frame: pl.LazyFrame) -> pl.LazyFrame | pl.DataFrame:
    return frame if wanted is pl.LazyFrame else frame.collect()
