"""Explains refusals of Google: what their details name as the cause, and which role is missing."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from google.api_core.exceptions import GoogleAPICallError

_NAME = re.compile(r"[\w.:-]{1,200}")
"""A name that can be copied into a shell as it is."""

_PERIMETER_ID = re.compile(r"vpcServiceControlsUniqueIdentifier:? *([\w-]{1,200})")
_CONSOLE_URL = re.compile(r"https://console\.(?:cloud|developers)\.google\.com/[\w./?=&%:-]{1,300}")


def named_cause(error: GoogleAPICallError) -> str | None:
    """Say what the details of a refusal name as its cause, and what to do about it.

    Args:
        error: The refusal.

    Returns:
        None if the details name no cause that is known here.
    """
    return named_obstacle(error) or _missing_permission(error)


def named_obstacle(error: GoogleAPICallError) -> str | None:
    """Say which obstacle a refusal names that no grant on a resource removes.

    Args:
        error: The refusal.

    Returns:
        The disabled API or the perimeter, and what to do about it; None if it names neither.
    """
    return _disabled_api(error) if is_disabled_api(error) else _perimeter(error)


def is_disabled_api(error: GoogleAPICallError) -> bool:
    """True if a refusal says that an API is disabled in the project that calls it.

    Args:
        error: The refusal.
    """
    return bool(error.reason == "SERVICE_DISABLED")


def missing_in_project(permission: str, role: str, project: str) -> str:
    """Say that a permission on a project is missing, which role has it and how to grant it.

    Args:
        permission: The permission, such as `bigquery.datasets.create`.
        role: A role that has it, such as `roles/bigquery.user`.
        project: The project.
    """
    return (
        f"The permission {permission} is missing: let an administrator of project {project} grant "
        f"these Google credentials {role}, with `gcloud projects add-iam-policy-binding {project} "
        f"--member=PRINCIPAL --role={role}`, where PRINCIPAL is their serviceAccount:… or user:…."
    )


def missing_on_exchange(permission: str, role: str, exchange: str) -> str:
    """Say that a permission on an exchange is missing, which role has it and who can grant it.

    Args:
        permission: The permission, such as `analyticshub.listings.list`.
        role: A role that has it, such as `roles/analyticshub.viewer`.
        exchange: The exchange's resource name.
    """
    return (
        f"The permission {permission} is missing: let the publisher of exchange {exchange} grant "
        f"these Google credentials {role} on it, in the Google console under BigQuery, Sharing; "
        "gcloud cannot. For Octogen's exchange ask Octogen, or list its listings with "
        "OctogenSource, which needs no role on the exchange."
    )


def _disabled_api(error: GoogleAPICallError) -> str:
    api = _stated(error, "service") or "analyticshub.googleapis.com"
    project = _stated(error, "consumer", prefix="projects/")
    where = f"project {project}" if project else "the project that these Google credentials call as"
    url = _stated(error, "activationUrl", pattern=_CONSOLE_URL)
    return (
        f"API {api} is not enabled in {where}: let an administrator run `gcloud services enable "
        f"{api} --project {project or 'PROJECT'}`{f' or open {url}' if url else ''}, and try again "
        "a few minutes later."
    )


def _perimeter(error: GoogleAPICallError) -> str | None:
    violations = [
        str(violation.description)
        for detail in error.details
        for violation in getattr(detail, "violations", ())
        if getattr(violation, "type", "") == "VPC_SERVICE_CONTROLS"
    ]
    in_message = _PERIMETER_ID.search(error.message or "")
    if not (violations or in_message or error.reason == "SECURITY_POLICY_VIOLATED"):
        return None
    identifiers = [
        *(in_message.groups() if in_message else ()),
        *filter(_NAME.fullmatch, violations),
        _stated(error, "uid"),
    ]
    identifier = identifiers[0]
    return (
        "A perimeter of VPC Service Controls forbids it"
        f"{f' (unique identifier {identifier})' if identifier else ''}: let an administrator of "
        "the organization look it up in the VPC Service Controls troubleshooter, and allow these "
        "Google credentials to reach Analytics Hub and BigQuery across the perimeter."
    )


def _missing_permission(error: GoogleAPICallError) -> str | None:
    permission = _stated(error, "permission")
    if error.reason != "IAM_PERMISSION_DENIED" or permission is None:
        return None
    return (
        f"The permission {permission} is missing: let an administrator of the resource grant these "
        "Google credentials a role that has it."
    )


def _stated(
    error: GoogleAPICallError, key: str, *, prefix: str = "", pattern: re.Pattern[str] = _NAME
) -> str | None:
    """A value that the details state; None if there is none or if it has odd characters."""
    value = str((error.metadata or {}).get(key, "")).removeprefix(prefix)
    return value if pattern.fullmatch(value) else None
