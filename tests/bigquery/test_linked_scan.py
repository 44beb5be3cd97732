"""The result of a query over a linked view as a lazy frame."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest

from octogen_dagster.bigquery.linked_scan import LinkedScan
from octogen_dagster.bigquery.query_result import QueryResult
from octogen_dagster.errors import OctogenBigQueryError
from octogen_dagster.frames.reading import Outcome
from tests.bigquery.rest_api import connected
from tests.bigquery.result_server import EXPORTED_AT, UUID, VIEW, ResultServer, storage_read_api
from tests.servers.analytics_hub import Refusal

Scan = Callable[..., LinkedScan]
MICROSECONDS = 1_000_000


def read(scan: LinkedScan) -> tuple[pl.DataFrame, Outcome]:
    """The rows of a scan, and what it says of itself."""
    with scan.reading(None) as reading:  # type: ignore[arg-type]
        return reading.frame.collect(), reading.outcome()


@pytest.fixture
def server() -> ResultServer:
    return ResultServer()


@pytest.fixture
def scan(server: ResultServer, tmp_path: Path) -> Iterator[Scan]:
    """Make a scan of the server's result, with other attributes of the server if given."""
    with connected(server, tmp_path) as client:

        def make(
            storage: Any = None, modified_column: str | None = None, **attributes: Any
        ) -> LinkedScan:
            for name, value in attributes.items():
                setattr(server, name, value)
            job = client.query("SELECT 1", job_id="job-1", job_retry=None, location="EU")
            return LinkedScan(QueryResult(job, storage, print), VIEW, 0.5, modified_column)

        yield make


def test_a_frame_has_the_rows_in_polars_types(scan: Scan) -> None:
    fields = [UUID, {"name": "price", "type": "NUMERIC"}, {"name": "at", "type": "DATETIME"}]
    made = scan(fields=fields, rows=[("u1", "1.5", "2026-01-02T03:04:05"), ("u2", None, None)])
    schema = {"uuid": pl.String(), "price": pl.Decimal(38, 9), "at": pl.Datetime("us")}
    frame, outcome = read(made)
    assert frame.schema == schema
    assert frame["at"].to_list() == [datetime(2026, 1, 2, 3, 4, 5), None]
    assert (outcome.rows, outcome.problem) == (2, None)
    assert outcome.provenance == {
        "octogen.source_table": VIEW,
        "octogen.job_id": "job-1",
        "octogen.rows": "2",
    }
    assert outcome.figures() == {"read_by": "REST"}


def test_head_reads_no_further_page_than_the_next(scan: Scan, server: ResultServer) -> None:
    made = scan(rows=[(f"u{number}",) for number in range(20)])
    with made.reading(None) as reading:  # type: ignore[arg-type]
        assert reading.frame.head(3).collect()["uuid"].to_list() == ["u0", "u1", "u2"]
    assert server.pages[-1] <= 4


@pytest.mark.parametrize(
    ("kind", "values", "newest"),
    [
        ("TIMESTAMP", ["1", "3", None, "2"], datetime(1970, 1, 1, 0, 0, 3, tzinfo=timezone.utc)),
        ("DATE", ["2026-01-02", "2026-01-01"], datetime(2026, 1, 2, tzinfo=timezone.utc)),
        ("TIMESTAMP", [None], None),
        ("STRING", ["yesterday"], None),
    ],
)
def test_the_last_modification_is_noted_as_the_rows_pass(
    kind: str, values: list[str | None], newest: datetime | None, scan: Scan
) -> None:
    if kind == "TIMESTAMP":
        values = [value and str(int(value) * MICROSECONDS) for value in values]
    column = {**EXPORTED_AT, "name": "Exported_At", "type": kind}
    made = scan(modified_column="Exported_At", fields=[column], rows=[(value,) for value in values])
    _, outcome = read(made)
    assert made.last_modified == newest
    assert outcome.figures().get("last_modified") == newest
    provenance = outcome.provenance.get("octogen.last_modified")
    assert provenance == (newest and newest.isoformat())


def test_fewer_rows_than_the_result_has_are_not_complete(scan: Scan) -> None:
    _, outcome = read(scan(total_rows=4))
    assert outcome.rows == 3
    assert outcome.problem == "the result of BigQuery's job job-1 has 4"


def test_a_page_that_is_refused_ends_the_read(scan: Scan) -> None:
    made = scan(page_failures=1)
    with pytest.raises(OctogenBigQueryError) as caught:
        read(made)
    assert str(caught.value).startswith(
        f"The rows of {VIEW}: BigQuery failed (504 timeout: The result is late). "
    )


@pytest.mark.parametrize(
    ("refusal", "line"),
    [
        (
            Refusal("PERMISSION_DENIED", "Not for you."),
            "BigQuery refused (PERMISSION_DENIED: Not for you). Let an administrator grant these "
            "Google credentials roles/bigquery.readSessionUser on the project that pays for the "
            "query.",
        ),
        (Refusal("DATA_LOSS", "Torn."), "BigQuery failed (DATA_LOSS: Torn). Try again later."),
    ],
    ids=["denied", "failed"],
)
def test_an_error_of_the_storage_read_api_says_what_to_do(
    refusal: Refusal, line: str, scan: Scan
) -> None:
    batch = pa.RecordBatch.from_pydict({"uuid": ["u1"]})
    with (
        storage_read_api([batch, refusal]) as storage,
        pytest.raises(OctogenBigQueryError) as caught,
    ):
        read(scan(storage=storage))
    assert str(caught.value) == f"The rows of {VIEW}: {line}"


def test_pages_without_end_are_not_read(scan: Scan, server: ResultServer) -> None:
    made = scan(rows=[(f"u{number}",) for number in range(20)], total_rows=3)
    _, outcome = read(made)
    assert outcome.rows == 4
    assert outcome.problem == "the result of BigQuery's job job-1 has 3"
    assert server.pages[-1] <= 4
