"""Processes that cost no imports: a fork server has made them. One for all tests of a worker."""

import multiprocessing

processes = multiprocessing.get_context("forkserver")
processes.set_forkserver_preload(["tests.snapshots.resume_runs", "tests.snapshots.budget_runs"])
