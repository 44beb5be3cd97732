"""The checks of the Google credentials and of their permissions on the project."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from octogen_dagster.doctor.findings import Check, Finding
from octogen_dagster.errors import OctogenBigQueryError
from octogen_dagster.sharing.google_errors import (
    ANALYTICS_HUB,
    BIGQUERY,
    load_credentials,
    missing_in_project,
    translate_google_errors,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from google.auth.credentials import Credentials

CREDENTIALS, PROJECT = "Google credentials", "Google project"
SUBSCRIBING = {
    "bigquery.datasets.create": "roles/bigquery.user",
    "bigquery.datasets.get": "roles/bigquery.user",
    "analyticshub.subscriptions.list": "roles/analyticshub.subscriptionOwner",
    "analyticshub.subscriptions.delete": "roles/analyticshub.subscriptionOwner",
}
"""The permissions on a project that linked datasets need, each with a role that has it."""

QUERYING = {"bigquery.jobs.create": "roles/bigquery.jobUser"}
"""The permissions on a project that queries need, each with a role that has it."""

_ADDRESS = "https://cloudresourcemanager.googleapis.com"
_RESOURCE_MANAGER = dataclasses.replace(
    BIGQUERY,
    name="Cloud Resource Manager",
    advice={},
    default_advice="Check the project's id, and that the Cloud Resource Manager API is enabled.",
)
_KINDS = {
    "google.oauth2.service_account": "the key file of a service account",
    "google.oauth2.credentials": "the login of a person",
    "google.auth.compute_engine": "the service account of this machine",
    "google.auth.impersonated_credentials": "an impersonated service account",
    "google.auth.identity_pool": "workload identity federation",
}


def check_google_project(
    credentials: Credentials | None,
    project: str,
    permissions: Mapping[str, str],
    *,
    principal: str | None,
    timeout: float,
    address: str = _ADDRESS,
) -> Check:
    """Check the credentials and which permissions they have on a project.

    Args:
        credentials: Google credentials; None for Application Default Credentials.
        project: The id of the project.
        permissions: The permissions that are needed, each with a role that has it.
        principal: The principal that Octogen shares with; None if it is not known.
        timeout: Seconds for the request.
        address: The address of Cloud Resource Manager.

    Raises:
        OctogenBigQueryError: The credentials are missing or refused.
    """
    with translate_google_errors(ANALYTICS_HUB, CREDENTIALS):
        loaded = load_credentials(credentials)
    yield _credentials_finding(loaded, principal)
    try:
        granted = _fetch_granted(loaded, project, permissions, timeout, address)
    except OctogenBigQueryError as error:
        yield Finding(PROJECT, "warning", f"the permissions on it are not known. {error}")
        return
    yield from _permission_findings(project, permissions, granted)


def _credentials_finding(credentials: Credentials, principal: str | None) -> Finding:
    module = type(credentials).__module__
    kind = next((kind for name, kind in _KINDS.items() if module.startswith(name)), module)
    account = getattr(credentials, "service_account_email", None) or getattr(
        credentials, "account", None
    )
    said = f"{kind}, {account or 'whose account they do not name'}."
    registered = (principal or "").partition(":")[2]
    if account and registered and account != registered:
        return Finding(
            CREDENTIALS,
            "warning",
            said,
            f"Octogen shares with {principal}: let these credentials be that principal's, or "
            "register theirs.",
        )
    return Finding(CREDENTIALS, "ok", said)


def _fetch_granted(
    credentials: Credentials,
    project: str,
    permissions: Collection[str],
    timeout: float,
    address: str,
) -> Collection[str]:
    """Ask Cloud Resource Manager which permissions are granted on a project.

    Raises:
        OctogenBigQueryError: It does not tell.
    """
    import requests
    from google.api_core import exceptions
    from google.auth.transport.requests import AuthorizedSession

    subject = f"Project {project}"
    with (
        AuthorizedSession(credentials) as session,  # type: ignore[no-untyped-call]
        translate_google_errors(_RESOURCE_MANAGER, subject),
    ):
        try:
            response = session.post(
                f"{address}/v3/projects/{project}:testIamPermissions",
                json={"permissions": list(permissions)},
                timeout=timeout,
            )
        except requests.RequestException as error:
            raise OctogenBigQueryError(
                f"{subject}: Cloud Resource Manager did not answer ({type(error).__name__}). Check "
                "the network, or look at the roles in the Google console."
            ) from None
        if response.status_code != 200:
            raise exceptions.from_http_response(response)  # type: ignore[no-untyped-call]
        granted: Collection[str] = response.json().get("permissions", ())
    return granted


def _permission_findings(
    project: str, permissions: Mapping[str, str], granted: Collection[str]
) -> Iterator[Finding]:
    present = [name for name in permissions if name in granted]
    if present:
        yield Finding(PROJECT, "ok", f"{project} grants {', '.join(present)}.")
    for name, role in permissions.items():
        if name not in granted:
            yield Finding(PROJECT, "failed", missing_in_project(name, role, project))
