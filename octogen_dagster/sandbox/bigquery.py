"""BigQuery's REST API for views in linked datasets. Jobs finish as soon as they are inserted."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.responses import JSONResponse

from octogen_dagster.sandbox.exports import View
from octogen_dagster.sandbox.listings import Listings, Refusal
from octogen_dagster.sandbox.select import Result, select

BIGQUERY_PATH = "/bigquery/v2/"
_LOCATION = "US"
_RESULTS = "_results"
_BYTES_OF_A_ROW = 1_000
_MIN_BYTES_BILLED = 10 * 2**20
_PAGE_ROWS = 10_000
_STATUS = {"notFound": 404, "accessDenied": 403, "duplicate": 409}

Json = dict[str, Any]


class _Refused(Exception):
    """A rejected request. The arguments are BigQuery's reason and a message."""


@dataclass(frozen=True)
class _Job:
    resource: Json
    result: Result


def create_bigquery_app(store: Listings) -> FastAPI:
    """Return the ASGI app that serves the linked datasets in all projects."""
    app, router, bigquery = FastAPI(openapi_url=None), APIRouter(), _BigQuery(store)
    app.add_exception_handler(_Refused, _error)
    router.get("/datasets/{dataset}/tables/{table}")(bigquery.get_table)
    router.post("/jobs")(bigquery.insert_job)
    router.get("/jobs/{job_id}")(bigquery.get_job)
    router.get("/queries/{job_id}")(bigquery.get_results)
    app.include_router(router, prefix=f"{BIGQUERY_PATH}projects/{{project}}")
    return app


def _error(request: Request, refused: Exception) -> Response:
    reason, message = refused.args
    status = _STATUS.get(reason, 400)
    errors = [{"reason": reason, "message": message, "domain": "global"}]
    return JSONResponse({"error": {"code": status, "message": message, "errors": errors}}, status)


class _BigQuery:
    """The routes, and the jobs that were inserted so far."""

    def __init__(self, store: Listings) -> None:
        self._store = store
        self._jobs: dict[str, _Job] = {}

    def get_table(self, project: str, dataset: str, table: str) -> Json:
        is_result = dataset == _RESULTS
        found = self._job(table).result if is_result else self._view(project, dataset, table)
        return {
            "tableReference": _table(project, dataset, table),
            "type": "TABLE" if is_result else "VIEW",
            "location": _LOCATION,
            "schema": {"fields": found.fields},
        }

    def insert_job(self, project: str, body: Json) -> Json:
        configuration = body["configuration"]
        if "query" not in configuration:
            raise _Refused("invalid", "The sandbox runs queries only.")
        query, job_id = configuration["query"], body["jobReference"]["jobId"]
        if job_id in self._jobs:
            raise _Refused("duplicate", f"Already Exists: Job {project}:{_LOCATION}.{job_id}")
        try:
            result = select(query["query"], self._view)
        except ValueError as error:
            raise _Refused("invalidQuery", str(error)) from None
        query.setdefault("destinationTable", _table(project, _RESULTS, job_id))
        resource = body | _outcome(result.rows_read, query.get("maximumBytesBilled"))
        if not configuration.get("dryRun"):
            self._jobs[job_id] = _Job(resource, result)
        return resource

    def get_job(self, job_id: str) -> Json:
        return self._job(job_id).resource

    def get_results(self, job_id: str, maxResults: int = _PAGE_ROWS, pageToken: int = 0) -> Json:
        job = self._job(job_id)
        if failure := job.resource["status"].get("errorResult"):
            raise _Refused(failure["reason"], failure["message"])
        rows, end = job.result.rows, pageToken + min(maxResults, _PAGE_ROWS)
        page: Json = {
            "jobReference": job.resource["jobReference"],
            "jobComplete": True,
            "schema": {"fields": job.result.fields},
            "totalRows": str(len(rows)),
        }
        if maxResults:  # without `rows`, the client fetches them later
            page["rows"] = rows[pageToken:end]
            if end < len(rows):
                page["pageToken"] = str(end)
        return page

    def _view(self, project: str, dataset: str, table: str) -> View:
        try:
            views = self._store.views(project, dataset)
        except Refusal as refusal:
            reason = "notFound" if refusal.args[0] == "NOT_FOUND" else "accessDenied"
            raise _Refused(reason, refusal.args[1]) from None
        if table not in views:
            raise _Refused("notFound", f"Not found: Table {project}:{dataset}.{table}")
        return views[table]

    def _job(self, job_id: str) -> _Job:
        if job := self._jobs.get(job_id):
            return job
        raise _Refused("notFound", f"Not found: Job {job_id}")


def _table(project: str, dataset: str, table: str) -> Json:
    return {"projectId": project, "datasetId": dataset, "tableId": table}


def _outcome(rows_read: int, max_bytes_billed: str | None) -> Json:
    """Return the status and statistics for a query that read `rows_read` rows."""
    size = rows_read * _BYTES_OF_A_ROW
    billed = max(size, _MIN_BYTES_BILLED)
    status: Json = {"state": "DONE"}
    if max_bytes_billed is not None and int(max_bytes_billed) < billed:
        limit = f"Query exceeded limit for bytes billed: {max_bytes_billed}."
        message = f"{limit} {billed} or higher required."
        status["errorResult"] = {"reason": "bytesBilledLimitExceeded", "message": message}
        billed = 0
    now = str(int(time.time() * 1000))
    figures = {"totalBytesProcessed": str(size), "totalBytesBilled": str(billed)}
    statistics = {
        **dict.fromkeys(("creationTime", "startTime", "endTime"), now),
        "query": {"statementType": "SELECT", **figures},
    }
    return {"status": status, "statistics": statistics}
