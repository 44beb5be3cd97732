"""Processes that a test starts, of which it kills some, and what Dagster says of its runs."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from itertools import accumulate
from pathlib import Path

import dagster as dg


class Processes:
    """Processes that work in a folder, which is their `DAGSTER_HOME`, and log to its file `log`.

    Args:
        folder: The folder.
        environment: Environment variables beside those of the test's process.
    """

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self._folder = folder
        self._environment = {**os.environ, **environment, "DAGSTER_HOME": str(folder)}
        self._started: list[subprocess.Popen[bytes]] = []

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        """Start a Python interpreter with these arguments, in a process group of its own."""
        with open(self._folder / "log", "ab") as log:
            process = subprocess.Popen(
                [sys.executable, *arguments],
                cwd=self._folder,
                env=self._environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._started.append(process)
        return process

    def kill_all(self) -> None:
        """Kill all processes with their children, since a killed code server leaves its runs."""
        for process in self._started:
            kill(process)


def kill(process: subprocess.Popen[bytes]) -> None:
    """Kill a process with its children."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(timeout=20)


@contextlib.contextmanager
def processes(folder: Path, environment: Mapping[str, str]) -> Iterator[Processes]:
    """Yield the processes of an instance, and kill them in the end."""
    started = Processes(folder, environment)
    try:
        yield started
    finally:
        started.kill_all()


def process_of(instance: dg.DagsterInstance, run: dg.DagsterRun) -> int | None:
    """Return the id of the process that executes a run; None while no log entry names it."""
    records = instance.all_logs(run.run_id, of_type=dg.DagsterEventType.ENGINE_EVENT)
    messages = " ".join(str(record.message) for record in records)
    found = re.search(r"Executing steps in process \(pid: (\d+)\)", messages)
    return int(found[1]) if found else None


def max_concurrent_runs(instance: dg.DagsterInstance) -> int:
    """Return the largest number of runs that were in progress at the same time."""
    records = [record for record in instance.get_run_records() if record.start_time]
    changes = [(record.start_time, 1) for record in records]
    changes += [(record.end_time, -1) for record in records]
    return max(accumulate(change for _, change in sorted(changes)))
