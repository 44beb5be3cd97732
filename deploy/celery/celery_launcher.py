"""A run launcher for Celery that notices when a worker died.

`dagster.yaml` names it, so each process of Dagster finds it by its PYTHONPATH. The Celery app of
the workers imports it too, for the command that interrupts a run.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from typing import TYPE_CHECKING, Any

from celery.states import READY_STATES
from celery.worker.control import control_command
from celery.worker.state import requests
from dagster_celery.launcher import CeleryRunLauncher
from dagster_celery.tags import DAGSTER_CELERY_TASK_ID_TAG

if TYPE_CHECKING:
    import dagster as dg

MAX_MISSES = 3
_STOP_TIMEOUT = 150.0
"""Seconds in which a run that is terminated ends by itself: longer than a refresh of the login."""

_ANSWER_TIMEOUT = 2.0
_POLL_SECONDS = 0.5
_INTERRUPT = "octogen_interrupt"
_STARTS_PROCESSES = {"multiprocess", "multi_or_in_process_executor"}


@control_command(name=_INTERRUPT, args=[("task_id", str)])  # type: ignore[untyped-decorator]
def interrupt(_state: Any, task_id: str) -> None:
    """Let the process of a task end by itself. After Celery's `revoke` it could not be killed."""
    request = requests.get(task_id)
    if request is not None and request.worker_pid:
        with contextlib.suppress(ProcessLookupError):
            os.kill(request.worker_pid, signal.SIGTERM)


class MonitoredCeleryRunLauncher(CeleryRunLauncher):
    """`dagster_celery.CeleryRunLauncher` that notices when the worker of a run died.

    Celery leaves a task STARTED for ever if the worker that took it died, and Dagster believes it.
    This launcher asks that worker for the task each time run monitoring checks the run, and all
    workers if the result backend has lost the state of the task. If none answers that it executes
    it, this is a miss. After three misses in a row the run is lost: run monitoring fails it, and
    `run_retries` launch another one. A broker that cannot be reached says nothing of a worker: the
    check fails, and is no miss.

    A run that is terminated is asked to end, so that it stores a login that Octogen is replacing
    and cancels its job in BigQuery. It is killed after 150 seconds if it goes on, as one does whose
    step takes the signal for a failure and begins again by the retry policy of its asset.

    A run whose executor starts processes is refused: Celery's processes may not have children.

    The settings are those of `CeleryRunLauncher`. The instance needs `run_monitoring`, and the
    workers Celery's default pool `prefork`: in the pool `solo`, a worker that executes a task does
    not answer.
    """

    def __init__(
        self, *arguments: Any, _stop_timeout: float = _STOP_TIMEOUT, **settings: Any
    ) -> None:
        super().__init__(*arguments, **settings)
        self._misses: dict[str, int] = {}
        self._stop_timeout = _stop_timeout

    def launch_run(self, context: Any) -> None:
        """Send a run to the workers, unless its executor cannot work there."""
        run: dg.DagsterRun = context.dagster_run
        if self._starts_processes(run):
            raise RuntimeError(
                f"Run {run.run_id} cannot be executed by Celery: the executor of job "
                f"{run.job_name!r} starts a process for each step, and Celery's processes may not "
                "have children. Set executor=dg.in_process_executor in the project's "
                "dg.Definitions, then launch the run again."
            )
        super().launch_run(context)

    def _starts_processes(self, run: dg.DagsterRun) -> bool:
        snapshot = run.execution_plan_snapshot_id
        plan = self._instance.get_execution_plan_snapshot(snapshot) if snapshot else None
        config: Any = run.run_config.get("execution") or {}
        chosen = config.get("config") or {}
        # Only Dagster's default executor has `in_process` in its configuration.
        return bool(plan and plan.executor_name in _STARTS_PROCESSES and "in_process" not in chosen)

    def check_run_worker_health(self, run: dg.DagsterRun) -> Any:
        """Check a run's Celery task, and that a worker executes it."""
        # A daemon that died after it sent a task has not stored its id: no worker executes this.
        task_id = run.tags.get(DAGSTER_CELERY_TASK_ID_TAG, run.run_id)
        health = super().check_run_worker_health(
            run.with_tags({**run.tags, DAGSTER_CELERY_TASK_ID_TAG: task_id})
        )
        statuses = type(health.status)  # it is private to Dagster
        if health.status in (statuses.SUCCESS, statuses.FAILED):
            return health
        alive = health._replace(status=statuses.RUNNING, msg=None)
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
        """Let a run end, and kill it if it goes on; False if there is none."""
        run = self._instance.get_run_by_id(run_id)
        if run is None or run.is_finished:
            return False
        self._instance.report_run_canceling(run)
        task_id = run.tags.get(DAGSTER_CELERY_TASK_ID_TAG)
        if task_id is None:
            self._instance.report_run_canceled(run)
            return True
        # The UI is not kept waiting.
        threading.Thread(target=self._end, args=(run, task_id), daemon=True).start()
        return True

    def _end(self, run: dg.DagsterRun, task_id: str) -> None:
        """Interrupt the process of a task, kill it if it goes on, and report its run."""
        task, ends_at = self.celery.AsyncResult(task_id), time.monotonic() + self._stop_timeout
        if self._is_executed(task_id):
            self.celery.control.broadcast(_INTERRUPT, arguments={"task_id": task_id})
            while task.state not in READY_STATES and time.monotonic() < ends_at:
                time.sleep(_POLL_SECONDS)
        if task.state not in READY_STATES:  # a worker that takes it later drops it
            self.celery.control.revoke(task_id, terminate=True, signal="SIGKILL")
        left = self._instance.get_run_by_id(run.run_id)
        if left is not None and not left.is_finished:
            self._instance.report_run_canceled(run)

    def _is_executed(self, task_id: str) -> bool:
        """True if a worker answers that it executes a task."""
        started = self.celery.AsyncResult(task_id).info
        worker = started.get("hostname") if isinstance(started, dict) else None
        inspect = self.celery.control.inspect(worker and [worker], timeout=_ANSWER_TIMEOUT)
        answers = inspect.query_task(task_id) or {}
        return any(task_id in tasks for tasks in answers.values())
