from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
from dagster_gcp import BigQueryResource

from octogen_dagster.doctor.queries import check_queries
from octogen_dagster.doctor.runner import run_checks
from tests.bigquery.rest_api import PROJECT, Answer, answering, environment, refused

VIEW = "my-project.octogen_acme.products_current_v1"


def diagnosed(answer: Answer, folder: Path, tables: list[str]) -> str:
    with answering(answer) as server, pytest.MonkeyPatch.context() as patch:
        for name, value in environment(server, server, folder).items():
            patch.setenv(name, value)
        check = partial(check_queries, BigQueryResource(project=PROJECT), tables, 30)
        (found,) = run_checks({"Queries": check}, 60)
    return str(found)


@pytest.mark.parametrize(
    ("tables", "sql"), [([], "SELECT 1"), ([VIEW, "a.b.c"], f"SELECT COUNT(*) FROM `{VIEW}`")]
)
def test_a_query_is_only_tried(tables: list[str], sql: str, tmp_path: Path) -> None:
    asked: list[dict[str, Any]] = []

    def answer(method: str, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        assert (method, path.partition("?")[0].endswith("/jobs")) == ("POST", True)
        asked.append(body["configuration"])
        reference = {"projectId": PROJECT, "jobId": "1", "location": "US"}
        return 200, {
            "jobReference": reference,
            "status": {"state": "DONE"},
            "configuration": body["configuration"],
            "statistics": {"totalBytesProcessed": "2048", "query": {"totalBytesProcessed": "2048"}},
        }

    found = diagnosed(answer, tmp_path, tables)
    assert found == (
        f"ok       Queries: `{sql}` may be run in project {PROJECT}; it would read 2,048 bytes."
    )
    (configuration,) = asked
    assert configuration["dryRun"] is True
    assert configuration["query"]["query"] == sql


def test_a_query_that_is_refused(tmp_path: Path) -> None:
    found = diagnosed(
        lambda *_: refused(403, "accessDenied", "User has no bigquery.jobs.create."), tmp_path, []
    )
    assert found.startswith(f"failed   Queries: A query in project {PROJECT}: BigQuery refused")
    assert "bigquery.jobs.create" in found
    assert "roles/bigquery.jobUser" in found


@pytest.mark.parametrize("credentials", ["no base64", "aGVsbG8="])
def test_credentials_that_are_no_key_file(credentials: str) -> None:
    bigquery = BigQueryResource(project=PROJECT, gcp_credentials=credentials)
    (found,) = run_checks({"Queries": partial(check_queries, bigquery, [], 30)}, 60)
    assert str(found) == (
        "failed   Queries: gcp_credentials of the BigQuery resource are not a Google key file in "
        "base64: set them to the output of `base64 -w0 key.json`."
    )
