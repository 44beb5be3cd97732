"""The function `diagnose`, and the checks that it runs for each resource."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from octogen_dagster.api.blocking import BlockingClient
from octogen_dagster.api.catalog_sources import (
    CatalogService,
    GrantedCatalogs,
    NamedCatalogs,
    ShopCatalogs,
)
from octogen_dagster.api.credentials import (
    API_KEY_VARIABLES,
    BASE_URL_VARIABLE,
    DEPRECATED_KEY_VARIABLE,
    KEY_VARIABLE,
    address_origin,
)
from octogen_dagster.api.retry import RetryPolicy
from octogen_dagster.api.spending import Spending
from octogen_dagster.background import Deadline
from octogen_dagster.bigquery.resources import AnalyticsHubResource, OctogenControlPlaneResource
from octogen_dagster.doctor.findings import (
    Check,
    Diagnosis,
    Finding,
    guarded,
    not_given,
    resolved,
    run_checks,
)
from octogen_dagster.doctor.resources import Resources
from octogen_dagster.doctor.sharing_checks import (
    analytics_hub_findings,
    control_plane_findings,
    credentials_findings,
    query_findings,
)
from octogen_dagster.errors import OctogenError, OctogenNotFoundError
from octogen_dagster.printable import count, usd
from octogen_dagster.products.resource import OctogenResource
from octogen_dagster.snapshots.io_manager import ParquetSnapshotIOManager
from octogen_dagster.snapshots.waiting import neglected
from octogen_dagster.storage.store import Store, write_parquet

if TYPE_CHECKING:
    from octogen_dagster.api.models import MeResponse
    from octogen_dagster.tables.destination import TableDestination

DEFAULT_TIMEOUT = 45.0
"""Time limit for all checks, in seconds.

A sensor tick has a time limit of 60 seconds.
"""

_PARTNER = "catalog_partner"
_PACKAGES = ("octogen-dagster", "dagster", "polars", "pyarrow", "pycurl")


def diagnose(
    *,
    octogen: OctogenResource | None = None,
    io_manager: ParquetSnapshotIOManager | None = None,
    analytics_hub: AnalyticsHubResource | None = None,
    control_plane: OctogenControlPlaneResource | None = None,
    bigquery: Any = None,
    tables: Sequence[TableDestination] = (),
    timeout: float = DEFAULT_TIMEOUT,
) -> Diagnosis:
    """Check the setup and suggest fixes, without searches or lookups.

    The checks write and delete one small file in the snapshot store, create and drop an empty table
    in each table destination, and use the refresh token, which Octogen replaces with each use. They
    change nothing else. Only the given resources are checked. Checks run concurrently, and a check
    that fails or hangs does not stop the others. You can call this function in a sensor or an asset
    check.

    Args:
        octogen: Octogen's REST API.
        io_manager: The snapshot IO manager.
        analytics_hub: Analytics Hub and the project for linked datasets.
        control_plane: Octogen's MCP.
        bigquery: A `dagster_gcp.BigQueryResource` or an `AnalyticsHubResource`, for queries over
            linked datasets.
        tables: Table destinations.
        timeout: Time limit for all checks, in seconds.
    """
    given = {
        "octogen": octogen,
        "io_manager": io_manager,
        "analytics_hub": analytics_hub,
        "control_plane": control_plane,
        "bigquery": bigquery,
    }
    resources = {name: {name: each} for name, each in given.items() if each is not None}
    resources["tables"] = {destination.pool: destination for destination in tables}
    checks = setup_checks(resources, timeout)
    found: dict[str, list[Finding]] = {subject: [] for subject in checks}
    for subject, finding in run_checks(checks, timeout):
        found[subject].append(finding)
    return Diagnosis(tuple(chain.from_iterable(found.values())))


def setup_checks(resources: Resources, timeout: float) -> dict[str, Callable[[], Check]]:
    """Return the checks for all REST APIs, IO managers and table destinations.

    If there are several resources of any other kind, only the first one is checked.
    """
    seconds = timeout / 3  # Octogen's MCP, Analytics Hub and queries are checked in sequence
    within = Deadline.after(timeout)
    first = {kind: next(iter(named.values())) for kind, named in resources.items() if named}
    control_plane, hub = first.get("control_plane"), first.get("analytics_hub")

    def sharing() -> Check:
        """Check the MCP login first, then Analytics Hub, then queries.

        Each check uses the results of the previous check.
        """
        project = resolved(hub).project if hub else None
        shared = yield from guarded(
            "MCP login", control_plane_findings(control_plane, project, seconds)
        )
        tables = yield from guarded(
            "Analytics Hub", analytics_hub_findings(hub, shared or {}, seconds, within)
        )
        yield from guarded("Queries", query_findings(first.get("bigquery"), tables or (), seconds))

    checks: dict[str, Callable[[], Check]] = {"Versions": _version_findings}
    for subject, kind, findings in (
        ("Octogen", "octogen", partial(_octogen_findings, seconds=seconds)),
        ("Snapshots", "io_manager", _snapshot_findings),
    ):
        named = resources.get(kind, {kind: None})
        for name, resource in named.items():
            suffix = f" ({name})" if len(named) > 1 else ""
            checks[subject + suffix] = partial(_with_suffix, suffix, partial(findings, resource))
    for pool, destination in resources.get("tables", {}).items():
        checks[f"Tables ({pool})"] = partial(_table_findings, destination)
    checks["Google credentials"] = partial(credentials_findings, hub, control_plane, seconds)
    checks["Sharing"] = sharing
    return checks


def _with_suffix(suffix: str, findings: Callable[[], Check]) -> Check:
    for finding in findings():
        yield replace(finding, subject=finding.subject + suffix)


def _version_findings() -> Check:
    import pycurl

    versions = [f"Python {platform.python_version()}"]
    for package in _PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions.append(f"{package} {importlib.metadata.version(package)}")
    versions.append(f"libcurl {pycurl.version_info()[1]}")  # bundled with pycurl
    yield Finding("Versions", "ok", f"{', '.join(versions)}.")


def _octogen_findings(octogen: OctogenResource | None, seconds: float) -> Check:
    """Check the API key, catalogs and limits, without searches or lookups."""
    if octogen is None:
        yield not_given("Octogen", "octogen")
        return
    octogen = resolved(octogen)
    service = replace(octogen.service(), retry=RetryPolicy(attempts=2, deadline=seconds))
    origin = address_origin(octogen.base_url, "base_url", BASE_URL_VARIABLE, octogen.host)
    yield Finding("Octogen host", "ok", f"{service.base_url} ({origin}).")
    with BlockingClient(service) as client:
        me: MeResponse | None = None
        try:
            me = client.get_me()
        except OctogenNotFoundError:  # the older contract, where listing catalogs checks the key
            client.list_catalog_states()
    yield _key_finding(octogen, service, me)
    yield _catalogs_finding(service)
    named = me.rate_limit.limit if me and me.rate_limit else None
    limit = named or service.spending.requests_per_minute
    rate = f"{limit:,.0f} requests per minute." if limit else "not reported by the service."
    yield Finding("Octogen rate limit", "ok", rate)
    yield _spending_finding(service.spending)
    yield Finding(
        "Octogen balance",
        "skipped",
        "Octogen's API does not report the remaining credit. When the credit is used up, "
        "searches and lookups return 402.",
    )


def _key_finding(
    octogen: OctogenResource, service: CatalogService, me: MeResponse | None
) -> Finding:
    origin = "the resource's api_key"
    if not octogen.api_key:
        origin = next(name for name in API_KEY_VARIABLES if os.environ.get(name, "").strip())
    names: tuple[str, ...] = ()
    said = f"{service.base_url} accepts the API key ({origin})"
    if me is None:
        said += " and implements the older API contract (seed)."
    else:
        name, kind = (me.organization.name, me.organization.type) if me.organization else ("", "")
        if name:
            said, names = f"{said} for the organization {name!r}", (name,)
        if kind not in ("", _PARTNER):  # new types can appear, and the service rejects wrong ones
            said += f", which has the type {kind!r}."
            advice = (
                f"Octogen's API is intended for organizations of type {_PARTNER}. If reads fail, "
                "ask Octogen for access."
            )
            return Finding("Octogen key", "warning", said, advice, names=names)
        said += " and implements the current API contract."
    if origin == DEPRECATED_KEY_VARIABLE:
        advice = f"Octogen has deprecated {origin}. Set {KEY_VARIABLE} instead."
        return Finding("Octogen key", "warning", said, advice, names=names)
    return Finding("Octogen key", "ok", said, names=names)


def _catalogs_finding(service: CatalogService) -> Finding:
    subject, source = "Octogen catalogs", service.catalog_source
    kind = type(source).__name__
    if isinstance(source, NamedCatalogs):
        said = f"{count(len(source.keys), 'catalog')} from NamedCatalogs, not checked."
        return Finding(subject, "ok", said)
    names = tuple(source.hosts) if isinstance(source, ShopCatalogs) else ()
    try:
        listed = service.fetch_catalogs()
    except OctogenNotFoundError as error:
        # Searches that name their catalogs work without a catalog source.
        is_default = isinstance(source, GrantedCatalogs)
        return Finding(subject, "warning" if is_default else "failed", str(error), names=names)
    except OctogenError as error:
        return Finding(subject, "failed", str(error), names=names)
    names += tuple(state.catalog for state in listed.catalogs)
    products = sum(state.product_count or 0 for state in listed.catalogs)
    said = f"{kind} lists {count(len(listed.catalogs), 'catalog')} with {products:,} products."
    if listed.warnings:
        return Finding(subject, "warning", said, " ".join(listed.warnings), names=names)
    if not listed.catalogs:
        return Finding(subject, "warning", said, "Ask Octogen for access to catalogs.")
    return Finding(subject, "ok", said)


def _spending_finding(spending: Spending) -> Finding:
    subject, page = "Octogen spending", spending.prices.search_page_usd
    prices = (
        f"configured prices: {usd(page)} per search page, {usd(spending.prices.lookup_usd)} per "
        "lookup"
    )
    if spending.budget_usd is None:
        advice = "To limit the cost of a run, set budget_usd."
        return Finding(subject, "ok", f"{prices}; no budget.", advice)
    pages = f" ({int(spending.budget_usd / page):,} pages)" if page else ""
    return Finding(subject, "ok", f"{prices}; budget per run: {usd(spending.budget_usd)}{pages}.")


def _snapshot_findings(io_manager: ParquetSnapshotIOManager | None) -> Check:
    """Test the snapshot store: write, publish, read and delete a small file.

    Then remove the folders that were created for the file.
    """
    if io_manager is None:
        yield not_given("Snapshots", "io_manager")
        return
    import polars as pl

    store, key = resolved(io_manager).store, f"octogen-doctor-{uuid.uuid4().hex}.parquet"
    with _without_new_folders(store, key):
        with store.unfinished(key) as unfinished:
            rows = write_parquet(pl.LazyFrame({"probe": [1]}), unfinished, dict, threading.Event())
            store.publish(unfinished, key)
        try:
            is_read = store.count_rows(key) == rows
        finally:
            store.delete([key])
    said = f"a test file was written, published, read and deleted in {store.base_dir}."
    if is_read:
        yield Finding("Snapshots", "ok", said)
        yield from _waiting_findings(store)
        return
    said = f"a test file in {store.base_dir} had a different number of rows when it was read back."
    advice = "Report this problem, and include the type of the object store."
    yield Finding("Snapshots", "failed", said, advice)


def _waiting_findings(store: Store) -> Check:
    """Warn about histories that have stopped reading snapshots.

    The store keeps replaced snapshots until the history has read them.
    """
    for history, readers in sorted(neglected(store).items()):
        number = count(sum(len(each.waiting) for each in readers), "snapshot")
        yield Finding(
            "Snapshots",
            "warning",
            f"the history {history} has not read {number} in {store.base_dir}.",
            "Materialize the history. If the history no longer exists, delete the folder "
            f"{store.uri(readers[0].folder)}"
            f"{f' and {len(readers) - 1:,} more with this name' if len(readers) > 1 else ''}.",
        )


def _table_findings(destination: TableDestination) -> Check:
    target = destination.resolved()
    target.try_out()
    said = (
        f"{target.place}: a test table was created and dropped in the schema "
        f"{target.default_schema}."
    )
    yield Finding(f"Tables ({destination.pool})", "ok", said)


@contextlib.contextmanager
def _without_new_folders(store: Store, key: str) -> Iterator[None]:
    """When the block ends, remove new, empty folders from a local store."""
    parents = Path(store.uri(key)).parents if store.is_local else ()
    new = [folder for folder in parents if not folder.exists()]
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # another process might use the folder already
            for folder in new:
                folder.rmdir()
