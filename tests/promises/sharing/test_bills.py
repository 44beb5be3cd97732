"""A bill of BigQuery is bounded and paid once, and a run that is stopped cancels its job."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from octogen_dagster import build_linked_products_asset, build_linked_snapshot_asset
from tests.messages import Golden
from tests.promises.sharing.linked import BIGQUERY, linked
from tests.results import failure, is_retried, materialized, metadata, stored
from tests.servers.bigquery import VIEW, BigQueryServer, serving

STOP_SECONDS = 60
"""The promise is a second or two; a busy machine takes longer, a broken promise five minutes."""
BILLED = 10 * 2**20
BROKEN = {"reason": "backendError", "message": "Internal"}
WRONG = {"reason": "invalidQuery", "message": "division by zero"}
NEVER = 10**9
AT_ONCE = dg.RetryPolicy(max_retries=1)
SNAPSHOT = "octogen_linked_snapshot"

Run = Callable[..., Any]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[BigQueryServer]:
    server = BigQueryServer()
    with serving(server, tmp_path):
        yield server


@pytest.fixture
def run(server: BigQueryServer, tmp_path: Path) -> Run:
    def run(**arguments: Any) -> dg.ExecuteInProcessResult:
        snapshot = build_linked_snapshot_asset(linked, **{"retry_policy": None, **arguments})
        return materialized([linked, snapshot], tmp_path, resources=BIGQUERY, raise_on_error=False)

    return run


def test_a_job_has_limits_and_labels_and_its_price_is_reported(
    server: BigQueryServer, run: Run
) -> None:
    result = run(max_bytes_billed=10**9)
    (body,) = server.inserted
    configuration = body["configuration"]
    assert configuration["query"]["maximumBytesBilled"] == "1000000000"
    assert configuration["jobTimeoutMs"] == "21600000"
    assert configuration["labels"] == {"dagster_asset": SNAPSHOT, "dagster_run": result.run_id}
    assert body["jobReference"]["location"] == "EU"
    shown = metadata(result, SNAPSHOT)
    assert shown["octogen/job_id"] == body["jobReference"]["jobId"]
    assert (shown["octogen/billed_bytes"], shown["octogen/seconds"]) == (BILLED, 2.0)
    assert shown["octogen/query_dollars"] == pytest.approx(0.00006)


@pytest.mark.parametrize(
    ("limit", "sent"), [({}, "100000000000"), ({"max_bytes_billed": None}, None)]
)
def test_the_limit_is_100_gb_unless_there_shall_be_none(
    limit: dict[str, Any], sent: str | None, server: BigQueryServer, run: Run
) -> None:
    assert run(**limit).success
    assert server.inserted[0]["configuration"]["query"].get("maximumBytesBilled") == sent


@pytest.mark.parametrize("build", [build_linked_snapshot_asset, build_linked_products_asset])
def test_a_query_that_reads_more_than_it_may_is_not_billed_and_not_retried(
    build: Callable[..., dg.AssetsDefinition], server: BigQueryServer, tmp_path: Path
) -> None:
    server.estimate = 2_000
    asset = build(linked, max_bytes_billed=1_999, retry_policy=AT_ONCE)
    result = materialized([linked, asset], tmp_path, resources=BIGQUERY, raise_on_error=False)
    assert "max_bytes_billed" in failure(result)
    assert not is_retried(result)
    assert server.billed == 0


def test_a_retried_step_reads_the_result_of_its_first_job(server: BigQueryServer, run: Run) -> None:
    server.page_failures = 1
    result = run(retry_policy=AT_ONCE)
    assert result.success
    assert is_retried(result)
    assert len(server.inserted) == 1


@pytest.mark.parametrize(("polls", "unseen"), [(0, 1), (2, 0)], ids=["ended", "running"])
def test_an_insert_whose_answer_is_lost_creates_one_job(
    polls: int, unseen: int, server: BigQueryServer, run: Run
) -> None:
    server.lost_answers, server.unseen, server.polls = 1, unseen, polls
    assert run().success
    assert len(server.inserted) == 1


def make_job() -> dg.JobDefinition:
    @dg.asset
    def exported() -> dg.MaterializeResult:  # type: ignore[type-arg]  # Dagster takes it for one with no value
        exported_at = os.environ.get("EXPORTED_AT", "")
        return dg.MaterializeResult(
            metadata={"dagster/table_name": VIEW, "octogen/exported_at": exported_at}
        )

    snapshot = build_linked_snapshot_asset(exported, retry_policy=None)
    job = dg.define_asset_job("brands", executor_def=dg.in_process_executor)
    folder = Path(os.environ["GOOGLE_APPLICATION_CREDENTIALS"]).parent
    defs = dg.Definitions([exported, snapshot], jobs=[job], resources=BIGQUERY | stored(folder))
    return defs.resolve_job_def("brands")


def execute(instance: dg.DagsterInstance, parent: str | None = None) -> dg.JobExecutionResult:
    return dg.execute_job(
        dg.reconstructable(make_job),
        instance=instance,
        reexecution_options=dg.ReexecutionOptions(parent) if parent else None,
    )


@pytest.mark.parametrize("lost", [None, "expired", "old", "exported again"])
def test_a_run_that_retries_another_takes_the_job_whose_result_is_there(
    lost: str | None,
    server: BigQueryServer,
    instance: dg.DagsterInstance,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server.page_failures = 1
    first = execute(instance)
    assert not first.success
    if lost == "expired":
        server.expire()
    elif lost == "old":
        server.age(24 * 3600 + 60)
    elif lost == "exported again":
        monkeypatch.setenv("EXPORTED_AT", "2.0")
    assert execute(instance, first.run_id).success
    assert len(server.inserted) == (1 if lost is None else 2)


@pytest.mark.slow
def test_a_run_that_repeats_one_that_succeeded_pays_for_rows_of_its_own(
    server: BigQueryServer, instance: dg.DagsterInstance
) -> None:
    first = execute(instance)
    server.rows = [("v1",), ("v2",)]
    assert execute(instance, first.run_id).success
    assert execute(instance).success
    assert len(server.jobs) == 3


@pytest.mark.slow
def test_a_failure_of_bigquery_itself_is_followed_by_another_job(
    server: BigQueryServer, run: Run
) -> None:
    server.failures = [BROKEN, None]
    assert run().success
    assert len(server.inserted) == 2


@pytest.mark.parametrize("polls", [0, 2])
def test_a_job_that_is_found_and_fails_is_followed_by_another(
    polls: int, server: BigQueryServer, run: Run
) -> None:
    server.failures, server.lost_answers, server.polls = [WRONG, None], 1, polls
    assert run().success
    assert len(server.inserted) == 2


def test_a_job_whose_result_is_refused_is_not_followed_by_another(
    golden: Golden, server: BigQueryServer, run: Run
) -> None:
    server.lost_answers, server.polls, server.refusals = 1, 1, 1
    golden("errors", failure(run()))
    assert len(server.inserted) == 1


@pytest.mark.parametrize(
    "reason",
    [
        "invalidQuery",
        "responseTooLarge",
        "resourcesExceeded",
        "stopped",
        "accessDenied",
        "quotaExceeded",
    ],
)
def test_a_job_that_bigquery_ended_says_what_to_do(
    golden: Golden, reason: str, server: BigQueryServer, run: Run
) -> None:
    server.failures = [{"reason": reason, "message": "Ended."}]
    result = run(retry_policy=AT_ONCE)
    golden("errors", failure(result))
    assert not is_retried(result)
    assert len(server.inserted) == 1


@pytest.mark.parametrize("moment", ["_insert", "_results"])
def test_a_run_that_is_stopped_cancels_its_job(
    moment: str, server: BigQueryServer, run: Run
) -> None:
    server.polls = NEVER
    answer = getattr(server, moment)

    def interrupt(*arguments: Any) -> Any:
        answered = answer(*arguments)
        if server.jobs:
            os.kill(os.getpid(), signal.SIGINT)
        return answered

    setattr(server, moment, interrupt)
    began = time.monotonic()
    assert not run().success
    assert time.monotonic() - began < STOP_SECONDS
    assert server.cancelled == list(server.jobs)


def test_a_run_that_is_stopped_does_not_wait_for_rows(
    server: BigQueryServer, run: Run, tmp_path: Path
) -> None:
    server.silent = "pageToken=2"

    def interrupt() -> None:
        server.held.wait(300)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt).start()
    began = time.monotonic()
    assert not run().success
    assert time.monotonic() - began < STOP_SECONDS
    assert not list((tmp_path / "snapshots").rglob("*.parquet"))
