"""A run launcher for Celery that notices when a worker died.

A `dagster.yaml` names it, as that of `deploy/celery/` does. Nothing else imports this module.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from octogen_dagster.validation import require_extras

require_extras("octogen_dagster.celery", "celery")

from dagster_celery.launcher import CeleryRunLauncher  # noqa: E402
from dagster_celery.tags import DAGSTER_CELERY_TASK_ID_TAG  # noqa: E402

if TYPE_CHECKING:
    import dagster as dg

MAX_MISSES = 3
_ANSWER_TIMEOUT = 2.0


class MonitoredCeleryRunLauncher(CeleryRunLauncher):
    """`dagster_celery.CeleryRunLauncher` that notices when the worker of a run died.

    Celery leaves a task STARTED for ever if the worker that took it died, and Dagster believes it.
    This launcher asks that worker for the task each time run monitoring checks the run, and all
    workers if the result backend has lost the state of the task. If none answers that it executes
    it, this is a miss. After three misses in a row the run is lost: run monitoring fails it, and
    `run_retries` launch another one. A broker that cannot be reached says nothing of a worker: the
    check fails, and is no miss.

    A run that is terminated is killed. Dagster's launcher sends a signal which a step takes for a
    failure, so that the run goes on by its asset's retry policy.

    The settings are those of `CeleryRunLauncher`. The instance needs `run_monitoring`, and the
    workers Celery's default pool `prefork`: in the pool `solo`, a worker that executes a task does
    not answer.
    """

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self._misses: dict[str, int] = {}

    def check_run_worker_health(self, run: dg.DagsterRun) -> Any:
        """Check a run's Celery task, and that a worker executes it."""
        health = super().check_run_worker_health(run)
        statuses = type(health.status)  # it is private to Dagster
        if health.status in (statuses.SUCCESS, statuses.FAILED):
            return health
        alive = health._replace(status=statuses.RUNNING, msg=None)
        task_id = run.tags[DAGSTER_CELERY_TASK_ID_TAG]
        is_executed = self._is_executed(task_id)
        misses = self._misses.pop(run.run_id, 0) + 1
        if is_executed:
            return alive
        if misses < MAX_MISSES:
            self._misses[run.run_id] = misses
            return alive
        return health._replace(
            status=statuses.NOT_FOUND,
            msg=f"In {MAX_MISSES} checks, no worker executed the Celery task {task_id}. The one "
            "that took it died or was restarted.",
        )

    def terminate(self, run_id: str) -> bool:
        """Kill the process of a run and report the run as canceled; False if there is none."""
        run = self._instance.get_run_by_id(run_id)
        if run is None or run.is_finished:
            return False
        # A step takes SIGTERM for a failure, and begins again by its asset's retry policy.
        task_id = run.tags[DAGSTER_CELERY_TASK_ID_TAG]
        self.celery.control.revoke(task_id, terminate=True, signal="SIGKILL")
        self._instance.report_run_canceled(run)
        return True

    def _is_executed(self, task_id: str) -> bool:
        """True if a worker answers that it executes a task."""
        started = self.celery.AsyncResult(task_id).info
        worker = started.get("hostname") if isinstance(started, dict) else None
        inspect = self.celery.control.inspect(worker and [worker], timeout=_ANSWER_TIMEOUT)
        answers = inspect.query_task(task_id) or {}
        return any(task_id in tasks for tasks in answers.values())
