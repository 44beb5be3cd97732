"""diagnose: runs the checks of the resources that a user has."""

from __future__ import annotations

import functools
import os
from typing import TYPE_CHECKING

import dagster as dg

from octogen_dagster.doctor.findings import Diagnosis, Finding
from octogen_dagster.doctor.octogen_api import check_octogen
from octogen_dagster.doctor.runner import run_checks
from octogen_dagster.doctor.snapshot_place import check_snapshot_place
from octogen_dagster.doctor.versions import check_versions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from octogen_dagster.snapshots.io_manager import ParquetSnapshotIOManager
    from octogen_dagster.snapshots.resource import OctogenResource

DEFAULT_TIMEOUT = 30.0


def diagnose(
    *,
    octogen: OctogenResource | None = None,
    io_manager: ParquetSnapshotIOManager | None = None,
    instance: dg.DagsterInstance | None = None,
    timeout: float = DEFAULT_TIMEOUT,
) -> Diagnosis:
    """Check what works, what does not and what to do, without a charged request.

    Nothing is changed, except for one small file that is written where snapshots are stored and
    deleted again. What is left out is not checked. The checks run at the same time, and one that
    fails or hangs does not stop the others. It can be called in a sensor or an asset check.

    Args:
        octogen: Octogen's REST API.
        io_manager: The place of the snapshots.
        instance: The Dagster instance, which limits the pool of the assets; by default that of
            DAGSTER_HOME.
        timeout: Seconds for all checks.
    """
    checks: dict[str, Callable[[], Iterable[Finding]]] = {"Versions": check_versions}
    if octogen is not None:
        checks["Octogen"] = functools.partial(_check_octogen, octogen, instance, timeout)
    if io_manager is not None:
        checks["Snapshots"] = functools.partial(check_snapshot_place, io_manager)
    return Diagnosis(tuple(run_checks(checks, timeout)))


def _check_octogen(
    octogen: OctogenResource, instance: dg.DagsterInstance | None, timeout: float
) -> Iterator[Finding]:
    if instance is not None or not os.environ.get("DAGSTER_HOME"):
        yield from check_octogen(octogen, instance, timeout)
        return
    with dg.DagsterInstance.get() as opened:
        yield from check_octogen(octogen, opened, timeout)
