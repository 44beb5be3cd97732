"""LinkedScan: the result of a query over a linked view as a lazy frame. Knows no Dagster."""

from __future__ import annotations

import functools
import threading
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, cast

import polars as pl

from octogen_dagster.bigquery.arrow_types import arrow_schema
from octogen_dagster.errors import OctogenBigQueryError, Persistence
from octogen_dagster.frames.io_source import Query, check, io_source
from octogen_dagster.frames.reading import ROWS, Limits, Outcome, Reading
from octogen_dagster.sharing.google_errors import BIGQUERY, translate_google_errors

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pyarrow as pa

    from octogen_dagster.bigquery.query_result import QueryResult
    from octogen_dagster.frames.reading import Figures, SnapshotPlace

_SHRINKING_CAUSES = (
    "Octogen exported the catalog only in part or under another name, the linked dataset was "
    "replaced, or its rows are filtered for these credentials"
)


class LinkedScan:
    """The rows of a query's result, which are read when the frame is executed.

    Args:
        result: The result of a query over the view.
        table: The name of the view.
        min_rows_ratio: The smallest snapshot to publish, as a share of the rows of the one that it
            replaces; 0 publishes any, also an empty one.
        modified_column: The name of the column that dates the rows; None if there is none.

    Attributes:
        last_modified: The newest value of that column that the last execution read.
    """

    spending = None

    def __init__(
        self,
        result: QueryResult,
        table: str,
        min_rows_ratio: float,
        modified_column: str | None = None,
    ) -> None:
        self.last_modified: datetime | None = None
        self._limits = Limits(min_rows_ratio=min_rows_ratio, shrinking_causes=_SHRINKING_CAUSES)
        self._modified_column = modified_column
        self._result = result
        self._table = table
        self._rows = 0
        self._arrow_schema = arrow_schema(result.schema)

    @contextmanager
    def reading(self, _place: SnapshotPlace) -> Iterator[Reading]:
        """Let the block store the rows of the result."""
        stop = threading.Event()
        schema = _to_polars(self._arrow_schema.empty_table()).schema
        frame = io_source(schema, self._frames, stop)
        yield Reading(frame, self._outcome, self._limits, stop=stop.set)

    def _outcome(self) -> Outcome:
        result, modified = self._result, self.last_modified
        facts: Figures = {} if modified is None else {"last_modified": modified}
        provenance = {
            "octogen.source_table": self._table,
            "octogen.job_id": result.job_id,
            ROWS: str(self._rows),
        }
        if modified is not None:
            provenance["octogen.last_modified"] = modified.isoformat()
        problem = f"the result of BigQuery's job {result.job_id} has {result.total_rows:,}"
        return Outcome(
            self._rows,
            None if self._rows == result.total_rows else problem,
            provenance,
            lambda: {"read_by": result.source, **facts},
        )

    def _frames(self, query: Query, stop: threading.Event) -> Iterator[pl.DataFrame]:
        self._rows, self.last_modified = 0, None
        with _retried(), translate_google_errors(BIGQUERY, f"The rows of {self._table}"):
            for batch in self._result.batches(functools.partial(check, stop)):
                frame = _to_polars(self._with_schema(batch))
                if query.n_rows is not None:
                    frame = frame.head(query.n_rows - self._rows)
                self._rows += len(frame)
                self._note_modification(frame)
                yield frame
                if self._rows == query.n_rows or self._rows > self._result.total_rows:
                    return  # more rows than there are may have no end

    def _with_schema(self, batch: pa.RecordBatch) -> pa.Table:
        import pyarrow as pa

        # The field metadata of Google would become types of their own in Polars.
        return pa.Table.from_batches([batch]).cast(self._arrow_schema)

    def _note_modification(self, frame: pl.DataFrame) -> None:
        if self._modified_column not in frame.columns:
            return
        column = frame[self._modified_column]
        if column.dtype.is_temporal():  # the view may have changed since its columns were read
            newest = cast("datetime | None", column.cast(pl.Datetime("us", "UTC")).max())
            known = [time for time in (newest, self.last_modified) if time is not None]
            self.last_modified = max(known, default=None)


@contextmanager
def _retried() -> Iterator[None]:
    """Let a run be retried if the rows are refused: it runs a query anew whose result is gone."""
    try:
        yield
    except OctogenBigQueryError as error:
        error.persistence = Persistence.UNCLEAR
        raise


def _to_polars(table: pa.Table) -> pl.DataFrame:
    return cast("pl.DataFrame", pl.from_arrow(table))
