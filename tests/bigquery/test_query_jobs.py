"""Queries within limits and their jobs, run by a server that answers as BigQuery's REST API."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from google.cloud.bigquery import Client

from octogen_dagster.bigquery.query_jobs import (
    MAX_ATTEMPTS,
    FinishedQuery,
    JobOrigin,
    QueryLimits,
    run_query,
)
from octogen_dagster.errors import OctogenBigQueryError, Persistence
from tests.bigquery.job_server import JobServer
from tests.bigquery.rest_api import PROJECT, connected

SQL = "SELECT brand FROM `p.d.t`"
ORIGIN = JobOrigin("run-1", "run-1", "shop/brands", "p:us:x:acme")
BROKEN = {"reason": "backendError", "message": "Internal"}
WRONG = {"reason": "invalidQuery", "message": "division by zero"}
NEVER = 10**9

Run = Callable[..., FinishedQuery]


@pytest.fixture
def server() -> JobServer:
    return JobServer()


@pytest.fixture
def client(server: JobServer, tmp_path: Path, quick_retries: None) -> Iterator[Client]:
    with connected(server, tmp_path) as client:
        yield client


@pytest.fixture
def run(client: Client) -> Run:
    def run(sql: str = SQL, origin: JobOrigin = ORIGIN, **arguments: Any) -> FinishedQuery:
        given: dict[str, Any] = {"limits": QueryLimits(), "location": "US"}
        return run_query(
            client, sql, subject="The query into p.d.b", origin=origin, **{**given, **arguments}
        )

    return run


def jobs(server: JobServer) -> list[str]:
    """The numbers of the attempts that were inserted."""
    return [body["jobReference"]["jobId"].rpartition("_")[2] for body in server.inserted]


def test_a_job_has_limits_labels_and_a_destination(server: JobServer, run: Run) -> None:
    query = run(destination=f"{PROJECT}.analytics.brands")
    (body,) = server.inserted
    configuration = body["configuration"]
    assert configuration["query"]["maximumBytesBilled"] == "100000000000"
    assert configuration["query"]["writeDisposition"] == "WRITE_TRUNCATE"
    assert configuration["query"]["destinationTable"]["tableId"] == "brands"
    assert configuration["jobTimeoutMs"] == "21600000"
    assert configuration["labels"] == {
        "dagster_asset": "shop_brands",
        "dagster_run": "run-1",
        "dagster_partition": "p_us_x_acme",
    }
    assert server.dry_runs[0]["configuration"]["labels"] == configuration["labels"]
    assert body["jobReference"]["jobId"].startswith("octogen_dagster_")
    assert (query.estimated_bytes, query.billed_bytes, query.seconds) == (1_000, 10 * 2**20, 2.0)
    assert [tuple(row) for row in query.job.result()] == [(25, None)]


def test_labels_are_cut_and_a_missing_partition_has_none() -> None:
    assert replace(ORIGIN, asset="É" * 70, partition=None).labels == {
        "dagster_asset": "_" * 63,
        "dagster_run": "run-1",
    }


def test_a_query_beyond_the_limit_is_not_run(server: JobServer, run: Run) -> None:
    server.estimate = 2_000
    with pytest.raises(OctogenBigQueryError) as caught:
        run(limits=QueryLimits(max_bytes_billed=1_999))
    assert str(caught.value) == (
        "The query into p.d.b: it reads 2,000 bytes by BigQuery's estimate, and max_bytes_billed "
        "is 1,999. It was not run and nothing was billed. Read fewer columns or partitions of the "
        "table, or raise max_bytes_billed of the asset. The query: SELECT brand FROM `p.d.t`"
    )
    assert not server.inserted
    run(limits=QueryLimits(max_bytes_billed=2_000))
    run(limits=QueryLimits(max_bytes_billed=None), sql="SELECT 2")
    limits = [body["configuration"]["query"].get("maximumBytesBilled") for body in server.inserted]
    assert limits == ["2000", None]


def test_only_a_select_is_run(server: JobServer, run: Run) -> None:
    server.statement = "SCRIPT"
    with pytest.raises(OctogenBigQueryError) as caught:
        run()
    assert str(caught.value) == (
        "The query into p.d.b: it is SCRIPT, and only one SELECT is run. Leave out CREATE, INSERT, "
        "DECLARE and further statements."
    )
    assert not server.inserted


@pytest.mark.parametrize("limit", [0, -1, 1e12, "100 GB"])
def test_a_limit_is_a_positive_whole_number(limit: Any) -> None:
    with pytest.raises(ValueError, match=r"^max_bytes_billed must be a positive whole number ") as (
        caught
    ):
        QueryLimits(max_bytes_billed=limit)
    assert str(caught.value).endswith(f"bytes, or None for no limit, not {limit!r}.")


@pytest.mark.parametrize("polls", [0, 2], ids=["ended", "running"])
def test_a_retried_run_finds_its_job(server: JobServer, run: Run, polls: int) -> None:
    first = run()
    server.polls = polls
    again = run(origin=replace(ORIGIN, run_id="run-2"))
    assert again.job.job_id == first.job.job_id
    assert [tuple(row) for row in again.job.result()] == [(25, None)]
    assert jobs(server) == ["0"]


@pytest.mark.parametrize("unseen", [0, 1])
def test_an_insert_whose_answer_is_lost_creates_one_job(
    server: JobServer, run: Run, unseen: int
) -> None:
    server.lost_answers, server.unseen = 1, unseen
    assert run().billed_bytes == 10 * 2**20
    assert jobs(server) == ["0"]


def test_two_processes_at_once_share_a_job(server: JobServer, run: Run) -> None:
    server.polls = 3
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda _: run(), range(2))
    assert first.job.job_id == second.job.job_id
    assert jobs(server) == ["0"]


@pytest.mark.parametrize(
    "other",
    [
        {"origin": replace(ORIGIN, root_run_id="run-2")},
        {"origin": replace(ORIGIN, asset="shop")},
        {"origin": replace(ORIGIN, partition="p:us:x:other")},
        {"origin": replace(ORIGIN, last_materialization="7")},
        {"sql": "SELECT 2"},
        {"destination": f"{PROJECT}.analytics.brands"},
        {"location": "EU"},
    ],
    ids=["run", "asset", "partition", "materialized", "sql", "destination", "location"],
)
def test_another_query_has_another_job(server: JobServer, run: Run, other: dict[str, Any]) -> None:
    run()
    run(**other)
    assert jobs(server) == ["0", "0"]
    assert len(server.jobs) == 2


def test_a_job_that_failed_or_lost_its_result_is_followed_by_another(
    server: JobServer, run: Run
) -> None:
    server.failures = [WRONG]
    with pytest.raises(OctogenBigQueryError) as caught:
        run()
    assert str(caught.value) == (
        "The query into p.d.b: BigQuery refused (400 invalidQuery: division by zero). Correct the "
        "SQL."
    )
    run()
    server.expire()
    run()
    server.age(24 * 3600 + 60)
    run()
    run()
    assert jobs(server) == ["0", "1", "2", "3"]


@pytest.mark.parametrize(
    ("reason", "advice"),
    [
        (
            "bytesBilledLimitExceeded",
            "Nothing was billed. Read fewer columns or partitions of the table, or raise "
            "max_bytes_billed of the asset.",
        ),
        (
            "responseTooLarge",
            "Read fewer columns or rows, or let query_linked_products write the result to a table.",
        ),
        ("resourcesExceeded", "Let the query read less, or do less at once."),
        (
            "stopped",
            "Somebody cancelled the job, or it took longer than it may. Run it again, or let the "
            "query read less.",
        ),
    ],
)
def test_a_job_that_bigquery_ended_says_what_to_do(
    server: JobServer, run: Run, reason: str, advice: str
) -> None:
    server.failures = [{"reason": reason, "message": "Ended."}]
    with pytest.raises(OctogenBigQueryError) as caught:
        run()
    assert str(caught.value).endswith(f" {reason}: Ended). {advice}")
    assert jobs(server) == ["0"]


def test_a_job_that_failed_is_not_taken_for_the_table_that_was_there_before(
    server: JobServer, run: Run
) -> None:
    server.tables["analytics.brands"] = {}
    server.failures, server.lost_answers = [WRONG, None], 1
    run(destination=f"{PROJECT}.analytics.brands")
    assert jobs(server) == ["0", "1"]


def test_a_failure_of_bigquery_itself_is_followed_by_another_job(
    server: JobServer, run: Run
) -> None:
    server.failures = [BROKEN, None]
    run()
    assert jobs(server) == ["0", "1"]


@pytest.mark.parametrize("polls", [0, 1, 2])
def test_a_job_that_is_found_and_then_fails_is_followed_by_another(
    server: JobServer, run: Run, polls: int
) -> None:
    server.failures, server.lost_answers, server.polls = [WRONG, None], 1, polls
    run()
    assert jobs(server) == ["0", "1"]


def test_a_job_that_is_found_and_refused_is_not_followed_by_another(
    server: JobServer, run: Run
) -> None:
    run()
    server.polls, server.refusals = 1, 1
    with pytest.raises(OctogenBigQueryError, match=r"refused \(403 accessDenied: Not you\)\. Let "):
        run()
    assert jobs(server) == ["0"]


def test_attempts_are_bounded(server: JobServer, run: Run) -> None:
    server.failures = [WRONG] * MAX_ATTEMPTS
    server.lost_answers = MAX_ATTEMPTS
    with pytest.raises(OctogenBigQueryError) as caught:
        run()
    assert str(caught.value) == (
        "The query into p.d.b: 20 jobs of this run and its retries failed, the last one "
        f"({WRONG['reason']}: {WRONG['message']}). Look up job {list(server.jobs)[-1]} in "
        "BigQuery, and start a new run."
    )
    assert len(server.inserted) == MAX_ATTEMPTS


def test_a_job_that_does_not_end_is_cancelled(server: JobServer, run: Run) -> None:
    server.polls = NEVER
    with pytest.raises(OctogenBigQueryError) as caught:
        run(limits=QueryLimits(job_timeout=0.1), timeout=0.2)
    (job_id,) = server.cancelled
    assert str(caught.value) == (
        f"The query into p.d.b: job {job_id} has not ended after 0 seconds and was cancelled. Let "
        "the query read less, or start a new run when BigQuery is less busy."
    )
    assert caught.value.persistence is Persistence.PERMANENT
    assert server.inserted[0]["configuration"]["jobTimeoutMs"] == "100"


@pytest.mark.parametrize("moment", ["_insert", "_results"])
def test_a_run_that_is_terminated_cancels_its_job(server: JobServer, run: Run, moment: str) -> None:
    server.polls = NEVER
    answer = getattr(server, moment)

    def interrupt(*arguments: Any) -> Any:
        answered = answer(*arguments)
        if server.jobs:
            os.kill(os.getpid(), signal.SIGINT)
        return answered

    setattr(server, moment, interrupt)
    with pytest.raises(KeyboardInterrupt):
        run()
    assert server.cancelled == list(server.jobs)
