"""A Dagster instance whose daemon and code server are processes, of which a test kills some.

They are forked from a process that has imported what they need, and so are the runs.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from multiprocessing import resource_tracker
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import dagster as dg
import grpc
from dagster._cli.api import api_cli
from dagster._core.scheduler.instigation import InstigatorTick, TickStatus
from dagster._daemon import sensor
from dagster._daemon.cli import cli as daemon_cli

from tests.forked import processes
from tests.ports import free_port
from tests.proxy import Proxy

CONFIG = """
telemetry: {enabled: false}
run_coordinator: {module: dagster._core.run_coordinator, class: DefaultRunCoordinator}
run_retries: {enabled: true, max_retries: 1}
"""
"""A tick launches its runs itself: what a killed queue was launching would start for ever."""
WORKSPACE = """
load_from: [{{grpc_server: {{host: 127.0.0.1, port: {port}, location_name: location.py}}}}]
"""
POLL_SECONDS = 150.0


class Dagster:
    """Processes that work in a folder, which is their `DAGSTER_HOME`, and log to its file `log`.

    Attributes:
        instance: The instance, for what a test looks at.
    """

    def __init__(
        self, folder: Path, environment: Mapping[str, str], instance: dg.DagsterInstance, port: int
    ) -> None:
        self.instance = instance
        self._folder = folder
        self._environment = {**environment, "DAGSTER_HOME": str(folder)}
        self._port = port
        self._started: list[BaseProcess] = []

    def start_code_server(self) -> BaseProcess:
        """Serve `location.py` on the port; return once it is served."""
        server = self._start(_serve, self._port)
        with grpc.insecure_channel(f"127.0.0.1:{self._port}") as channel:
            grpc.channel_ready_future(channel).result(timeout=60)
        return server

    def start_daemon(
        self, method: str = "submit_run", moment: str = "never", calls: int = 1
    ) -> BaseProcess:
        """Start a daemon that kills itself before or after its n-th call of a method, or "never".

        Of updates of a tick only the one at its end counts, and only if the tick requested runs.
        """
        return self._start(_run_daemon, method, moment, calls)

    def runs(self) -> Counter[tuple[str, str]]:
        """Count the runs of each catalog or listing with each status."""
        return Counter(
            (run.tags.get("dagster/partition", "").rpartition(":")[2], run.status.value)
            for run in self.instance.get_runs()
        )

    def ticks(self, status: TickStatus) -> list[int]:
        """The number of ticks of each sensor with a status."""
        return [
            len(
                self.instance.get_ticks(
                    sensor.instigator_origin_id, sensor.selector_id, statuses=[status]
                )
            )
            for sensor in self.instance.all_instigator_state()
        ]

    def wait_for_rest(self) -> None:
        """Wait until each sensor has requested nothing in two more ticks, and all runs ended."""
        begin = self.ticks(TickStatus.SKIPPED)
        wait_until(
            lambda: all(
                now >= before + 2
                for now, before in zip(self.ticks(TickStatus.SKIPPED), begin, strict=True)
            ),
            lambda: self.ticks(TickStatus.SKIPPED),
        )
        ended = {"SUCCESS", "FAILURE"}
        wait_until(lambda: {status for _, status in self.runs()} <= ended, self.runs)

    def kill_all(self) -> None:
        """Kill all processes with their children, since a killed code server leaves its runs."""
        for process in self._started:
            kill(process)

    def _start(self, target: Callable[..., None], *arguments: Any) -> BaseProcess:
        process = processes.Process(
            target=_in_folder, args=(self._folder, self._environment, target, *arguments)
        )
        process.start()
        self._started.append(process)
        return process


def wait_until(condition: Callable[[], bool], seen: Callable[[], object]) -> None:
    """Wait until a condition holds; what was seen last is in the error."""
    deadline = time.monotonic() + POLL_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"not within {POLL_SECONDS} s; last seen: {seen()}"
        time.sleep(0.1)


def kill(process: BaseProcess) -> None:
    """Kill a process with its children."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid or os.getpid(), signal.SIGKILL)
    process.join(20)


@contextlib.contextmanager
def dagster(
    folder: Path, location: str, environment: Mapping[str, str], proxy: Proxy | None = None
) -> Iterator[Dagster]:
    """Yield an instance of which nothing runs yet; kill all that runs in the end.

    Args:
        folder: The empty folder of the instance.
        location: The text of the code location.
        environment: Environment variables beside those of the test's process.
        proxy: What the daemon reaches the code server through.
    """
    port = free_port()
    if proxy:
        proxy.upstream = port
    (folder / "dagster.yaml").write_text(CONFIG)
    (folder / "location.py").write_text(location)
    (folder / "workspace.yaml").write_text(WORKSPACE.format(port=proxy.port if proxy else port))
    with dg.DagsterInstance.from_config(str(folder)) as instance:
        started = Dagster(folder, environment, instance, port)
        try:
            yield started
        finally:
            started.kill_all()


# In the processes.


def _in_folder(
    folder: Path, environment: Mapping[str, str], target: Callable[..., None], *arguments: Any
) -> None:
    os.setsid()
    os.chdir(folder)
    os.environ.update(environment)
    log = os.open("log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for output in (sys.stdout, sys.stderr):
        os.dup2(log, output.fileno())
    target(*arguments)


def _serve(port: int) -> None:
    """Serve the code location; fork its runs, where Dagster starts an interpreter for each."""
    setattr(resource_tracker._resource_tracker, "_fd", None)  # noqa: B010  # it gets its own one
    forked = multiprocessing.get_context("forkserver")
    forked.set_forkserver_preload([__name__, "octogen_dagster.snapshots.io_manager"])
    setattr(multiprocessing, "get_context", lambda _: forked)  # noqa: B010
    api_cli(["grpc", "-f", "location.py", "-h", "127.0.0.1", "-p", str(port)])


def _run_daemon(method: str, moment: str, calls: int) -> None:
    left = calls
    step = getattr(dg.DagsterInstance, method)

    def last_step(instance: dg.DagsterInstance, *arguments: Any, **named: Any) -> Any:
        nonlocal left
        counts = method != "update_tick" or _ends_with_runs(arguments[0])
        left -= counts
        if counts and moment == "before" and left <= 0:
            os.kill(os.getpid(), signal.SIGKILL)
        result = step(instance, *arguments, **named)
        if counts and moment == "after" and left <= 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(dg.DagsterInstance, method, last_step)
    setattr(sensor, "MIN_INTERVAL_LOOP_TIME", 1)  # noqa: B010
    daemon_cli(["run", "-w", "workspace.yaml"])


def _ends_with_runs(tick: InstigatorTick) -> bool:
    return tick.is_completed and bool(tick.tick_data.reserved_run_ids)
