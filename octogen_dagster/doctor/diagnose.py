"""diagnose: runs the checks of the resources that a user has."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import dagster as dg
from pydantic import BaseModel

from octogen_dagster.doctor.analytics_hub import check_analytics_hub
from octogen_dagster.doctor.control_plane import check_control_plane
from octogen_dagster.doctor.findings import Diagnosis, Finding
from octogen_dagster.doctor.google_project import QUERYING, SUBSCRIBING, check_google_project
from octogen_dagster.doctor.octogen_api import check_octogen
from octogen_dagster.doctor.queries import check_queries
from octogen_dagster.doctor.runner import guarded, run_checks
from octogen_dagster.doctor.snapshot_place import check_snapshot_place
from octogen_dagster.doctor.versions import check_versions
from octogen_dagster.sharing.analytics_hub import EMULATOR_VARIABLE

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from octogen_dagster.bigquery.resources import (
        AnalyticsHubResource,
        OctogenControlPlaneResource,
    )
    from octogen_dagster.snapshots.io_manager import ParquetSnapshotIOManager
    from octogen_dagster.snapshots.resource import OctogenResource

    Check = Generator[Finding, None, None]

_Resource = TypeVar("_Resource", bound=BaseModel)

DEFAULT_TIMEOUT = 45.0
"""Seconds for all checks, so that a sensor, which has 60, can wait for them."""


def diagnose(
    *,
    octogen: OctogenResource | None = None,
    io_manager: ParquetSnapshotIOManager | None = None,
    analytics_hub: AnalyticsHubResource | None = None,
    control_plane: OctogenControlPlaneResource | None = None,
    bigquery: Any = None,
    listings: Sequence[str] = (),
    exchange: str | None = None,
    instance: dg.DagsterInstance | None = None,
    timeout: float = DEFAULT_TIMEOUT,
) -> Diagnosis:
    """Check what works, what does not and what to do, without a charged request.

    Nothing is changed, except for one small file that is written where snapshots are stored and
    deleted again. A resource that is left out is not checked. The checks run at the same time, and
    one that fails or hangs does not stop the others. It can be called in a sensor or an asset
    check.

    Args:
        octogen: Octogen's REST API.
        io_manager: The place of the snapshots.
        analytics_hub: Analytics Hub, with the project of the linked datasets.
        control_plane: Octogen's MCP.
        bigquery: A `dagster_gcp.BigQueryResource`, for queries over linked datasets.
        listings: Resource names of listings that must be granted, besides those that Octogen's MCP
            names.
        exchange: The exchange that an `ExchangeSource` reads.
        instance: The Dagster instance, which limits the pool of the assets; by default that of
            DAGSTER_HOME.
        timeout: Seconds for all checks.
    """
    stage_timeout = timeout / 3  # Octogen's MCP, Analytics Hub and queries are checked in turn
    sharing = _Sharing(analytics_hub, control_plane, bigquery, listings, exchange, stage_timeout)
    checks: dict[str, Callable[[], Check]] = {
        "Versions": check_versions,
        "Octogen": partial(_check_octogen, octogen, instance, stage_timeout),
        "Snapshots": partial(_check_snapshot_place, io_manager),
        "Google credentials": sharing.check_google,
        "Sharing": sharing.check,
    }
    return Diagnosis(tuple(run_checks(checks, timeout)))


def _check_octogen(
    octogen: OctogenResource | None, instance: dg.DagsterInstance | None, timeout: float
) -> Check:
    if octogen is None:
        yield _not_given("Octogen", "octogen")
    elif instance is not None or not os.environ.get("DAGSTER_HOME"):
        yield from check_octogen(_resolved(octogen), instance, timeout)
    else:
        with dg.DagsterInstance.get() as opened:
            yield from check_octogen(_resolved(octogen), opened, timeout)


def _check_snapshot_place(io_manager: ParquetSnapshotIOManager | None) -> Check:
    if io_manager is None:
        yield _not_given("Snapshots", "io_manager")
    else:
        yield from check_snapshot_place(_resolved(io_manager))


@dataclass(frozen=True)
class _Sharing:
    """The checks of shared listings."""

    analytics_hub: AnalyticsHubResource | None
    control_plane: OctogenControlPlaneResource | None
    bigquery: Any
    listings: Sequence[str]
    exchange: str | None
    timeout: float

    def check_google(self) -> Check:
        """Check the credentials and their permissions on the project."""
        if self.analytics_hub is None:
            return
        hub = _resolved(self.analytics_hub)
        if hub.endpoint or os.environ.get(EMULATOR_VARIABLE):
            said = "Analytics Hub is a local server, which takes none."
            yield Finding("Google credentials", "skipped", said)
            return
        permissions = SUBSCRIBING if self.bigquery is None else {**SUBSCRIBING, **QUERYING}
        principal = _resolved(self.control_plane).principal if self.control_plane else None
        yield from check_google_project(
            hub.credentials(),
            hub.project,
            permissions,
            principal=principal,
            timeout=self.timeout,
        )

    def check(self) -> Check:
        """Check Octogen's MCP, Analytics Hub and queries, which use what the one before found."""
        shared = yield from guarded("MCP login", self._check_control_plane)
        tables = yield from guarded(
            "Analytics Hub", partial(self._check_analytics_hub, shared or ())
        )
        yield from guarded("Queries", partial(self._check_queries, tables or ()))

    def _check_control_plane(self) -> Generator[Finding, None, Sequence[str]]:
        if self.control_plane is None:
            yield _not_given("MCP login", "control_plane")
            return ()
        project = _resolved(self.analytics_hub).project if self.analytics_hub else None
        control_plane = _resolved(self.control_plane)
        return (yield from check_control_plane(control_plane, project, self.timeout))

    def _check_analytics_hub(
        self, shared: Sequence[str]
    ) -> Generator[Finding, None, Sequence[str]]:
        if self.analytics_hub is None:
            yield _not_given("Analytics Hub", "analytics_hub")
            return ()
        return (
            yield from check_analytics_hub(
                _resolved(self.analytics_hub), self.listings, shared, self.exchange, self.timeout
            )
        )

    def _check_queries(self, tables: Sequence[str]) -> Check:
        if self.bigquery is None:
            yield _not_given("Queries", "bigquery")
        else:
            yield from check_queries(_resolved(self.bigquery), tables, self.timeout)


def _resolved(resource: _Resource) -> _Resource:
    """Return a resource with the values of the environment variables that it names.

    Raises:
        ValueError: A variable is not set.
    """
    values: dict[str, str] = {}
    for field, value in resource:
        if isinstance(value, dg.EnvVar):
            variable = value.env_var_name
            if variable not in os.environ:
                raise ValueError(
                    f"{type(resource).__name__} takes {field} from the environment variable "
                    f"{variable}, which is not set: set it where the code runs."
                )
            values[field] = os.environ[variable]
    return resource.model_copy(update=values) if values else resource


def _not_given(subject: str, resource: str) -> Finding:
    return Finding(subject, "skipped", f"there is no resource `{resource}` to check.")
