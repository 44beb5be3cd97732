"""Processes that start without importing anything.

A fork server imports the modules once for each pytest worker, and forks a process for each run.
"""

import multiprocessing

processes = multiprocessing.get_context("forkserver")
processes.set_forkserver_preload(
    [
        "tests.daemon.processes",
        "tests.docs.preloaded",
        "tests.promises.login.control_plane_sessions",
        "tests.promises.history.history_runs",
        "tests.promises.read.killed",
        "tests.promises.read.rate_limit_runs",
        "tests.promises.tables.table_runs",
    ]
)
