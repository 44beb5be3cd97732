"""SharingChecks: runs the checks of shared listings, which build on each other."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from octogen_dagster.doctor.analytics_hub import check_analytics_hub
from octogen_dagster.doctor.control_plane import check_control_plane
from octogen_dagster.doctor.findings import Check, Finding, not_given
from octogen_dagster.doctor.google_project import QUERYING, SUBSCRIBING, check_google_project
from octogen_dagster.doctor.queries import check_queries
from octogen_dagster.doctor.runner import guarded
from octogen_dagster.doctor.variables import resolved
from octogen_dagster.sharing.hub import EMULATOR_VARIABLE

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from octogen_dagster.background import Deadline
    from octogen_dagster.bigquery.resources import (
        AnalyticsHubResource,
        OctogenControlPlaneResource,
    )


@dataclass(frozen=True)
class SharingChecks:
    """The checks of the resources that listings are shared with.

    Args:
        analytics_hub: Analytics Hub; None if there is no such resource.
        control_plane: Octogen's MCP; None if there is no such resource.
        bigquery: A `dagster_gcp.BigQueryResource`; None if there is no such resource.
        listings: Resource names of listings that must be granted.
        exchange: The exchange whose listings are to be read; None for none.
        timeout: Seconds for each call.
        within: Ends the calls of Analytics Hub when it ends.
    """

    analytics_hub: AnalyticsHubResource | None
    control_plane: OctogenControlPlaneResource | None
    bigquery: Any
    listings: Sequence[str]
    exchange: str | None
    timeout: float
    within: Deadline

    def check_google(self) -> Check:
        """Check the credentials and their permissions on the project."""
        if self.analytics_hub is None:
            return
        hub = resolved(self.analytics_hub)
        if hub.endpoint or os.environ.get(EMULATOR_VARIABLE):
            said = "Analytics Hub is a local server, which takes none."
            yield Finding("Google credentials", "skipped", said)
            return
        permissions = SUBSCRIBING if self.bigquery is None else {**SUBSCRIBING, **QUERYING}
        principal = resolved(self.control_plane).principal if self.control_plane else None
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
            yield not_given("MCP login", "control_plane")
            return ()
        project = resolved(self.analytics_hub).project if self.analytics_hub else None
        control_plane = resolved(self.control_plane)
        return (yield from check_control_plane(control_plane, project, self.timeout))

    def _check_analytics_hub(
        self, shared: Sequence[str]
    ) -> Generator[Finding, None, Sequence[str]]:
        if self.analytics_hub is None:
            yield not_given("Analytics Hub", "analytics_hub")
            return ()
        return (
            yield from check_analytics_hub(
                resolved(self.analytics_hub),
                self.listings,
                shared,
                self.exchange,
                self.timeout,
                within=self.within,
            )
        )

    def _check_queries(self, tables: Sequence[str]) -> Check:
        if self.bigquery is None:
            yield not_given("Queries", "bigquery")
        else:
            yield from check_queries(resolved(self.bigquery), tables, self.timeout)
