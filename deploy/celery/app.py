"""The Celery app of the workers, which execute runs: `celery -A app worker`.

`dagster_celery.app` would ignore the broker of `dagster.yaml`. This one reads the same variable.
"""

import os

import celery_launcher  # noqa: F401  # its launcher asks workers to interrupt a run
from dagster_celery.make_app import make_app
from dagster_celery.tasks import create_execute_job_task

redis = os.environ["DAGSTER_CELERY_REDIS"]
app = make_app({"broker": redis, "backend": redis, "task_default_queue": "dagster"})
app.conf.update(
    # A worker takes a run when it can begin with it: those that it took die with it.
    worker_disable_prefetch=True,
    broker_connection_retry_on_startup=True,
)
execute_job = create_execute_job_task(app)
