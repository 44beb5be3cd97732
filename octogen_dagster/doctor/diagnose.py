"""diagnose: runs the checks of the resources that a user has."""

from __future__ import annotations

import contextlib
import os
from functools import partial
from typing import TYPE_CHECKING, Any

import dagster as dg

from octogen_dagster.background import Deadline
from octogen_dagster.doctor.findings import Check, Diagnosis, Finding, not_given
from octogen_dagster.doctor.octogen_api import check_octogen
from octogen_dagster.doctor.runner import run_checks
from octogen_dagster.doctor.sharing import SharingChecks
from octogen_dagster.doctor.snapshot_place import check_snapshot_place
from octogen_dagster.doctor.variables import resolved
from octogen_dagster.doctor.versions import check_versions
from octogen_dagster.sharing.names import ListingName, checked_exchange

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from octogen_dagster.bigquery.resources import (
        AnalyticsHubResource,
        OctogenControlPlaneResource,
    )
    from octogen_dagster.snapshots.io_manager import ParquetSnapshotIOManager
    from octogen_dagster.snapshots.resource import OctogenResource

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
    """Check what works, what does not and what to do, without a search or lookup.

    Nothing is changed, except for one small file that is written where snapshots are stored and
    deleted again, and a refresh token that Octogen replaces, as with every login. A resource that
    is left out is not checked. The checks run at the same time, and one that fails or hangs does
    not stop the others. It can be called in a sensor or an asset check.

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

    Raises:
        OctogenBigQueryInputError: The name of a listing or of the exchange is malformed.
    """
    for listing in listings:
        ListingName.parse(listing)
    if exchange is not None:
        checked_exchange(exchange)
    stage_timeout = timeout / 3  # Octogen's MCP, Analytics Hub and queries are checked in turn
    sharing = SharingChecks(
        analytics_hub,
        control_plane,
        bigquery,
        listings,
        exchange,
        stage_timeout,
        Deadline.after(timeout),
    )
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
        yield not_given("Octogen", "octogen")
        return
    with contextlib.ExitStack() as stack:
        if instance is None and os.environ.get("DAGSTER_HOME"):
            try:
                instance = stack.enter_context(dg.DagsterInstance.get())
            except Exception as error:  # of Dagster, of its database or of a plugin
                yield Finding(
                    "Dagster instance",
                    "failed",
                    f"that of DAGSTER_HOME cannot be opened ({type(error).__name__}).",
                    "`dagster instance info` says why.",
                )
        yield from check_octogen(resolved(octogen), instance, timeout)


def _check_snapshot_place(io_manager: ParquetSnapshotIOManager | None) -> Check:
    if io_manager is None:
        yield not_given("Snapshots", "io_manager")
    else:
        yield from check_snapshot_place(resolved(io_manager))
