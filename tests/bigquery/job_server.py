"""BigQuery's jobs, as its REST reference describes them, with results that a test sets."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.bigquery.rest_api import PROJECT, refused

ANONYMOUS = {"projectId": PROJECT, "datasetId": "_anonymous"}


@dataclass
class JobServer:
    """An answer for `rest_api.answering`, which remembers the jobs.

    Attributes:
        estimate: The bytes that a dry run estimates.
        failures: The error results of the next jobs, in their order; None for one that succeeds.
        statement: The type of each statement.
        polls: The number of requests for results until a job has ended.
        refusals: The number of times that the results of a job are refused.
        lost_answers: The number of inserts whose jobs are created and whose answers are lost.
        unseen: The number of times that a job which exists is not found.
        row: The values of the only row of each result.
        tables: The resources of tables by dataset and table, as "analytics.brands".
        datasets: The resources of datasets by id.
        inserted: The body of each insert that was not a dry run, in their order.
        dry_runs: The body of each dry run, in their order.
        jobs: The resources of jobs by id.
        cancelled: The ids of the jobs that were cancelled.
    """

    estimate: int = 1_000
    failures: list[dict[str, Any] | None] = field(default_factory=list)
    statement: str = "SELECT"
    polls: int = 0
    refusals: int = 0
    lost_answers: int = 0
    unseen: int = 0
    row: list[str | None] = field(default_factory=lambda: ["25", None])
    tables: dict[str, dict[str, Any]] = field(default_factory=dict)
    datasets: dict[str, dict[str, Any]] = field(default_factory=dict)
    inserted: list[dict[str, Any]] = field(default_factory=list)
    dry_runs: list[dict[str, Any]] = field(default_factory=list)
    jobs: dict[str, dict[str, Any]] = field(default_factory=dict)
    cancelled: list[str] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, method: str, path: str, body: dict[str, Any]) -> Any:
        with self._lock:
            return self._answer(method, path, body)

    def _answer(self, method: str, path: str, body: dict[str, Any]) -> Any:
        url = urlsplit(path)
        match url.path.split(f"/projects/{PROJECT}/")[1].split("/"):
            case ["jobs"]:
                return self._insert(body)
            case ["jobs", job_id]:
                return self._get(job_id)
            case ["jobs", job_id, "cancel"]:
                self.cancelled.append(job_id)
                return 200, {"job": self.jobs[job_id]}
            case ["queries", job_id]:
                return self._results(job_id, parse_qs(url.query))
            case ["datasets", dataset]:
                return self._found(self.datasets.get(dataset))
            case ["datasets", dataset, "tables", table]:
                return self._found(self.tables.get(f"{dataset}.{table}"))
            case other:
                raise AssertionError(f"{method} {other}")

    def expire(self) -> None:
        """Let the results of all jobs be gone."""
        self.tables.clear()

    def age(self, seconds: int) -> None:
        """Let all jobs have ended earlier."""
        for job in self.jobs.values():
            job["statistics"]["endTime"] = str(_now() - 1_000 * seconds)

    def _insert(self, body: dict[str, Any]) -> Any:
        configuration = body["configuration"]
        query = {"statementType": self.statement, "totalBytesProcessed": str(self.estimate)}
        if configuration.get("dryRun"):
            self.dry_runs.append(body)
            status = {"state": "DONE"}
            return 200, {**body, "status": status, "statistics": {"query": query}}
        job_id = body["jobReference"]["jobId"]
        if job_id in self.jobs:
            return refused(409, "duplicate", f"Already Exists: Job {PROJECT}:US.{job_id}")
        self.inserted.append(body)
        failure = self.failures.pop(0) if self.failures else None
        table = configuration["query"].setdefault(
            "destinationTable", {**ANONYMOUS, "tableId": job_id}
        )
        if failure is None:
            self.tables[f"{table['datasetId']}.{table['tableId']}"] = {"tableReference": table}
        self.jobs[job_id] = {
            **body,
            "status": {"state": "DONE", **({"errorResult": failure} if failure else {})},
            "statistics": {
                "startTime": str(_now() - 2_000),
                "endTime": str(_now()),
                "query": {**query, "totalBytesBilled": str(10 * 2**20)},
            },
        }
        if self.lost_answers:
            self.lost_answers -= 1
            return refused(503, "backendError", "The answer is lost")
        return self._get(job_id)

    def _get(self, job_id: str) -> Any:
        if self.unseen:
            self.unseen -= 1
            return refused(404, "notFound", f"Not found: Job {job_id}")
        job = self.jobs[job_id]
        return 200, {**job, "status": {"state": "RUNNING"}} if self.polls else job

    def _results(self, job_id: str, parameters: dict[str, list[str]]) -> Any:
        job = self.jobs[job_id]
        if self.refusals:
            self.refusals -= 1
            return refused(403, "accessDenied", "Not you")
        self.polls = max(0, self.polls - 1)  # the last poll waits for the end
        if self.polls:
            return 200, {"jobReference": job["jobReference"], "jobComplete": False}
        if failure := job["status"].get("errorResult"):
            return refused(400, failure["reason"], failure["message"])
        rows = [{"f": [{"v": value} for value in self.row]}]
        return 200, {
            "jobReference": job["jobReference"],
            "jobComplete": True,
            "totalRows": "1",
            "schema": {
                "fields": [
                    {"name": "row_count", "type": "INTEGER"},
                    {"name": "last_modified", "type": "TIMESTAMP"},
                ]
            },
            **({} if parameters.get("maxResults") == ["0"] else {"rows": rows}),
        }

    @staticmethod
    def _found(resource: dict[str, Any] | None) -> Any:
        return refused(404, "notFound", "Not found") if resource is None else (200, resource)


def _now() -> int:
    """Milliseconds since 1970."""
    return int(time.time() * 1000)
