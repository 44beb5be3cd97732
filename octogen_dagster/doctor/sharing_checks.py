"""Checks for data sharing: Octogen's MCP, Analytics Hub and BigQuery."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Generator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from octogen_dagster.api.credentials import address_origin
from octogen_dagster.background import Deadline
from octogen_dagster.bigquery.queries import dry_run
from octogen_dagster.bigquery.resources import (
    MCP_URL_VARIABLE,
    TOKEN_ENDPOINT_VARIABLE,
    AnalyticsHubResource,
    OctogenControlPlaneResource,
)
from octogen_dagster.bigquery.tables import open_client
from octogen_dagster.control_plane.login_files import SecretFile
from octogen_dagster.control_plane.login_places import LoginPlaces
from octogen_dagster.control_plane.tools import OctogenMCP
from octogen_dagster.doctor.findings import Check, Finding, not_given, resolved
from octogen_dagster.errors import OctogenBigQueryError, OctogenBigQueryInputError, OctogenMCPError
from octogen_dagster.printable import count
from octogen_dagster.sharing.google_errors import (
    ANALYTICS_HUB,
    BIGQUERY,
    load_credentials,
    missing_in_project,
    translate_google_errors,
)
from octogen_dagster.sharing.hub import EMULATOR_VARIABLE, AnalyticsHub, Subscription
from octogen_dagster.sharing.names import TABLE, ListingName, plan_subscription
from octogen_dagster.sharing.subscribe import in_force

if TYPE_CHECKING:
    from google.auth.credentials import Credentials

_DEFAULT_LOCATION = "US"
_MAX_LISTINGS = 100
_MAX_NAMES = 3
_MAX_FAILURES = 3  # unreadable listings mostly share one cause
_GRANT = (
    "Within minutes, Octogen grants roles/analyticshub.subscriber on the listing to the registered "
    "principal. If you do not receive this role, check that the Google credentials belong to the "
    "principal."
)
_ELSEWHERE = "Linked datasets and queries might use the wrong location. Please report this."
_RESTRICTED = (
    "Google rejects copies and exports from the linked dataset. If restrict_query_result is set, "
    "linked snapshots are not possible. Query the dataset in BigQuery instead."
)
_SESSION = "The login ends when the user's session on Octogen's platform ends."
_PROJECT_PERMISSIONS = {
    "bigquery.datasets.create": "roles/bigquery.user",
    "bigquery.datasets.get": "roles/bigquery.user",
    "analyticshub.subscriptions.list": "roles/analyticshub.subscriptionOwner",
    "bigquery.jobs.create": "roles/bigquery.jobUser",
}
"""The required project permissions, each with a role that grants the permission."""
_KINDS = {
    "google.oauth2.service_account": "a service account key file",
    "google.oauth2.credentials": "a user login",
    "google.auth.compute_engine": "this machine's service account",
    "google.auth.impersonated_credentials": "an impersonated service account",
    "google.auth.identity_pool": "workload identity federation",
}


def credentials_findings(
    analytics_hub: AnalyticsHubResource | None,
    control_plane: OctogenControlPlaneResource | None,
    seconds: float,
) -> Check:
    """Report the Google credentials, their permissions and whether they match the principal."""
    if analytics_hub is None:
        return
    subject, hub = "Google credentials", resolved(analytics_hub)
    if hub.endpoint or os.environ.get(EMULATOR_VARIABLE):
        said = "a local Analytics Hub emulator does not require credentials."
        yield Finding(subject, "skipped", said)
        return
    with translate_google_errors(ANALYTICS_HUB, f"Project {hub.project}"):
        credentials = load_credentials(hub.credentials())
    module = type(credentials).__module__
    kind = next((kind for name, kind in _KINDS.items() if module.startswith(name)), module)
    account = getattr(credentials, "service_account_email", None) or getattr(
        credentials, "account", None
    )
    said = f"{kind}, {account or 'account unknown'}."
    principal = resolved(control_plane).principal if control_plane else ""
    registered = principal.partition(":")[2]
    if account and registered and account != registered:
        advice = (
            f"Octogen shares data with {principal}. Use that principal's credentials, or register "
            "this account as a subscriber."
        )
        yield Finding(subject, "warning", said, advice)
    else:
        yield Finding(subject, "ok", said)
    yield from _permission_findings(credentials, hub.project, seconds)


def _permission_findings(credentials: Credentials, project: str, seconds: float) -> Check:
    """Test the permissions on the project. Skip the test if the request for them fails."""
    import requests
    from google.auth.exceptions import GoogleAuthError
    from google.auth.transport.requests import AuthorizedSession

    subject = "Google project"
    url = f"https://cloudresourcemanager.googleapis.com/v3/projects/{project}:testIamPermissions"
    asked = {"permissions": list(_PROJECT_PERMISSIONS)}
    try:
        with AuthorizedSession(credentials) as session:  # type: ignore[no-untyped-call]
            response = session.post(url, json=asked, timeout=seconds)
        response.raise_for_status()
        granted = response.json().get("permissions", ())
    except (requests.RequestException, GoogleAuthError) as error:
        answer = getattr(error, "response", None)
        cause = type(error).__name__ if answer is None else f"HTTP {answer.status_code}"
        said = f"Cloud Resource Manager does not report the permissions on {project} ({cause})."
        advice = "Enable cloudresourcemanager.googleapis.com, or check the roles in the console."
        yield Finding(subject, "skipped", said, advice)
        return
    if present := [name for name in _PROJECT_PERMISSIONS if name in granted]:
        yield Finding(subject, "ok", f"{project} grants {', '.join(present)}.")
    for name, role in _PROJECT_PERMISSIONS.items():
        if name not in granted:
            yield Finding(subject, "failed", missing_in_project(name, role, project))


def control_plane_findings(
    resource: OctogenControlPlaneResource | None, project: str | None, seconds: float
) -> Generator[Finding, None, dict[str, str | None]]:
    """Check the login, its role and the subscriber. Return the location of each shared listing."""
    if resource is None:
        yield not_given("MCP login", "control_plane")
        return {}
    resource = resolved(resource)
    url, endpoint = resource.mcp_url, resource.token_endpoint
    url_origin = address_origin(resource.url, "url", MCP_URL_VARIABLE, resource.host)
    endpoint_origin = address_origin(None, "", TOKEN_ENDPOINT_VARIABLE, resource.host)
    said = f"{url} ({url_origin}); token endpoint: {endpoint} ({endpoint_origin})."
    yield Finding("MCP host", "ok", said)
    login = resource.login
    kept = login.get("token_uri") or login.get("refresh_token_file") or login.get("refresh_token")
    is_refreshed = not login.get("token_command") and bool(kept or not login.get("access_token"))
    if is_refreshed:
        yield from _refresh_token_findings(login)
    with resource.control_plane(seconds) as octogen:
        shared = octogen.listings()
        listings = {
            each.listing_resource: each.location for each in shared if each.listing_resource
        }
        yield Finding(
            "MCP login",
            "ok",
            f"{url} accepts the login; shared listings: {len(listings):,}.",
            _SESSION if is_refreshed else "",
        )
        try:
            yield from _subscriber_findings(octogen, project, resource.principal)
        except OctogenMCPError as error:
            yield Finding("MCP role", "failed", str(error))
    return listings


def _refresh_token_findings(login: dict[str, Any]) -> Check:
    """Warn if the refresh token is not stored, or if other users can read or replace it."""
    place = login.get("token_uri") or login.get("refresh_token_file")
    if not place and login.get("refresh_token"):
        yield Finding(
            "MCP login",
            "warning",
            "the refresh token comes from OCTOGEN_MCP_REFRESH_TOKEN. Octogen replaces this token "
            "with each use, and the new token is lost when the process ends.",
            "To store the tokens in a file, run `octogen-dagster login`.",
        )
        return
    token = LoginPlaces.at(place).refresh_token
    if not isinstance(token, SecretFile):
        return
    with contextlib.suppress(OSError):  # the login check reports more
        mode = stat.S_IMODE(token.path.stat().st_mode)
        if mode & 0o066:
            may = "read" if mode & 0o044 else "replace"
            yield Finding(
                "MCP login",
                "warning",
                f"other users can {may} the {token} (mode {mode:04o}).",
                "The next successful login restricts the file to its owner. If others might have "
                "read the token, run `octogen-dagster login` again.",
            )


def _subscriber_findings(octogen: OctogenMCP, project: str | None, principal: str) -> Check:
    subscribers, _ = octogen.subscribers()
    yield Finding("MCP role", "ok", "the login can manage subscribers.")
    mine = [
        each
        for each in subscribers
        if each.principal == principal and project in (None, each.project)
    ]
    subject = "MCP subscriber"
    name = f"{principal} in project {project}" if project else principal
    if not mine:
        advice = (
            "Run `octogen-dagster bq autosubscribe --apply`, or materialize the linked-datasets "
            "asset with control_plane=True."
        )
        yield Finding(subject, "warning", f"{name} is not registered.", advice)
    elif not any(each.is_enabled for each in mine):
        said = f"{name} is registered, but {mine[0].desired_state}."
        yield Finding(subject, "failed", said, "Ask Octogen to enable the subscriber.")
    else:
        yield Finding(subject, "ok", f"{name} is registered.")


def analytics_hub_findings(
    resource: AnalyticsHubResource | None,
    shared: Mapping[str, str | None],
    seconds: float,
    within: Deadline,
) -> Generator[Finding, None, Sequence[str]]:
    """Check the subscriptions and the shared listings. Return the linked tables."""
    if resource is None:
        yield not_given("Analytics Hub", "analytics_hub")
        return ()
    resource = resolved(resource)
    listings: list[ListingName] = []
    elsewhere: list[str] = []
    for name, location in shared.items():
        try:
            listing = ListingName.parse(name)
        except OctogenBigQueryInputError as error:
            yield Finding("Listings", "failed", str(error))
        else:
            listings.append(listing)
            if location and location.casefold() != listing.location.casefold():
                elsewhere.append(f"{name} ({location})")
    if elsewhere:
        said = f"Octogen's location differs from the location in the name for {_names(elsewhere)}"
        yield Finding("Listings", "failed", said, _ELSEWHERE)
    with resource.hub(seconds, within=within) as hub:
        subscriptions: list[Subscription] = []
        for location in sorted({each.location for each in listings} or {_DEFAULT_LOCATION}):
            try:
                found = hub.list_subscriptions(resource.project, location)
            except OctogenBigQueryError as error:
                yield Finding("Subscriptions", "failed", str(error))
            else:
                subscriptions += found
                number = count(len(found), "subscription")
                said = f"project {resource.project} has {number} in location {location}."
                yield Finding("Subscriptions", "ok", said)
        return (yield from _listing_findings(hub, resource.project, listings, subscriptions))


def _listing_findings(
    hub: AnalyticsHub,
    project: str,
    listings: Sequence[ListingName],
    subscriptions: Sequence[Subscription],
) -> Generator[Finding, None, Sequence[str]]:
    """Report which listings are subscribed, which are available, and which are not granted yet."""
    tables: list[str] = []
    available: list[str] = []
    not_granted: list[str] = []
    failures = checked = 0
    for listing in listings[:_MAX_LISTINGS]:
        if failures == _MAX_FAILURES:
            break
        checked += 1
        plan = plan_subscription(str(listing), project)
        if existing := in_force(subscriptions, plan):
            dataset = f"{existing.project or project}.{existing.dataset_id or plan.dataset_id}"
            tables.append(f"{dataset}.{TABLE}")
            continue
        try:
            may_subscribe = hub.may_subscribe(listing)
        except OctogenBigQueryError as error:
            failures += 1
            yield Finding("Listings", "failed", str(error))
        else:
            (available if may_subscribe else not_granted).append(str(listing))
    if tables:
        yield Finding("Listings", "ok", f"subscribed to {_names(tables)}")
    if available:
        yield Finding("Listings", "ok", f"ready to subscribe to {_names(available)}")
    if not_granted:
        said = (
            f"the permission analyticshub.listings.subscribe is missing for {_names(not_granted)}"
        )
        yield Finding("Listings", "warning", said, _GRANT)
    yield from _restriction_findings(hub, listings[:checked])
    if not listings:
        yield Finding("Listings", "skipped", "Octogen's MCP server returned no listings.")
    if left := len(listings) - checked:
        yield Finding("Listings", "skipped", f"not checked: {count(left, 'more listing')}.")
    return tables


def _restriction_findings(hub: AnalyticsHub, listings: Sequence[ListingName]) -> Check:
    """Warn about listings whose linked datasets cannot be exported."""
    restricted = []
    failures = 0
    for listing in listings:
        try:
            restrictions = hub.export_restrictions(listing)
        except OctogenBigQueryError:  # not readable
            failures += 1
            if failures == _MAX_FAILURES:
                break
        else:
            if restrictions:
                restricted.append(f"{listing} ({', '.join(restrictions)})")
    if restricted:
        said = f"exports are restricted (restricted_export_config) for {_names(restricted)}"
        yield Finding("Listings", "warning", said, _RESTRICTED)


def _names(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MAX_NAMES:,} more" if names[_MAX_NAMES:] else ""
    return f"{len(names):,}: {', '.join(names[:_MAX_NAMES])}{more}."


def query_findings(bigquery: Any, tables: Sequence[str], seconds: float) -> Check:
    """Check that queries can run. The check is a dry run, which is free of charge."""
    if bigquery is None:
        yield not_given("Queries", "bigquery")
        return
    # The names come from Analytics Hub and are validated.
    sql = f"SELECT COUNT(*) FROM `{tables[0]}`" if tables else "SELECT 1"  # noqa: S608
    with open_client(resolved(bigquery)) as client:
        with translate_google_errors(BIGQUERY, f"A query in project {client.project}"):
            size = dry_run(client, sql, seconds)
        yield Finding(
            "Queries",
            "ok",
            f"the query `{sql}` can run in project {client.project} and would read {size:,} bytes.",
        )
