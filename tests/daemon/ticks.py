"""Ticks of a sensor as Dagster's daemon makes them, in the test's own process and one at a time.

Dagster evaluates the sensor, adds partitions, creates and executes runs, and stores the tick.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
from dagster._core.remote_origin import InProcessCodeLocationOrigin
from dagster._core.scheduler.instigation import InstigatorState, InstigatorTick
from dagster._core.test_utils import create_test_daemon_workspace_context, freeze_time
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
from dagster._core.workspace.load_target import InProcessWorkspaceLoadTarget
from dagster._daemon.sensor import execute_sensor_iteration

LAUNCHER = {
    "module": "dagster._core.launcher.sync_in_memory_run_launcher",
    "class": "SyncInMemoryRunLauncher",
}
AT_ONCE = {"module": "dagster._core.run_coordinator", "class": "DefaultRunCoordinator"}


class Daemon:
    """Dagster with one sensor, whose code location is a file."""

    def __init__(self, instance: dg.DagsterInstance, workspace: Any) -> None:
        self.instance = instance
        self._workspace = workspace
        self._now = time.time()

    def tick(self, *, hours: float = 1 / 12) -> InstigatorTick:
        """Make the next tick, five minutes after the last one by Dagster's clock."""
        self._now += hours * 3600
        with freeze_time(self._now):
            for _ in execute_sensor_iteration(
                self._workspace, logging.getLogger("daemon"), None, None
            ):
                pass
        return self.ticks()[0]

    def failure(self) -> str:
        """Make a tick that fails; return why."""
        tick = self.tick()
        assert tick.error, tick
        return str(tick.error)

    def forget(self) -> None:
        """Reset the cursor, as an operator does in the UI."""
        state = self._state()
        data: Any = state.instigator_data
        self.instance.update_instigator_state(state.with_data(data._replace(cursor=None)))

    def ticks(self) -> list[InstigatorTick]:
        """Return the sensor's ticks, the latest first."""
        state = self._state()
        return list(self.instance.get_ticks(state.instigator_origin_id, state.selector_id))

    def read(self) -> Counter[str]:
        """Count the successful runs of each catalog or listing."""
        succeeded = dg.RunsFilter(statuses=[dg.DagsterRunStatus.SUCCESS])
        partitions = [run.tags["dagster/partition"] for run in self.instance.get_runs(succeeded)]
        return Counter(each.split("|")[0].rpartition(":")[2] for each in partitions)

    def materialized(self, asset: str) -> Counter[str]:
        """Count the materializations of each catalog."""
        found = self.instance.fetch_materializations(dg.AssetKey(asset), limit=1_000)
        return Counter((each.partition_key or "").split("|")[0] for each in found.records)

    def _state(self) -> InstigatorState:
        (state,) = self.instance.all_instigator_state()
        return state


@contextlib.contextmanager
def daemon(folder: Path, location: str, **settings: Any) -> Iterator[Daemon]:
    """Yield the daemon of a code location; settings are those of the instance."""
    path = folder / "location.py"
    path.write_text(location)
    overrides = {"run_launcher": LAUNCHER, "run_coordinator": AT_ONCE, **settings}
    origin = InProcessCodeLocationOrigin(
        LoadableTargetOrigin(executable_path=sys.executable, python_file=str(path))
    )
    with (
        dg.DagsterInstance.local_temp(str(folder), overrides=overrides) as instance,
        create_test_daemon_workspace_context(
            InProcessWorkspaceLoadTarget(origin), instance
        ) as workspace,
    ):
        yield Daemon(instance, workspace)
