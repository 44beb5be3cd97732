"""Errors of this package for those of Google's libraries, with their cause and the missing role."""

from __future__ import annotations

import contextlib
import functools
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from octogen_dagster.errors import (
    OctogenBigQueryError,
    OctogenBigQueryUnavailableError,
    OctogenBigQueryUnreachableError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from google.api_core.exceptions import GoogleAPICallError
    from google.auth.credentials import Credentials
    from google.auth.exceptions import GoogleAuthError

TOKEN_TIMEOUT = 30.0
"""Seconds for one request to Google's token endpoint."""

_SCOPES = ["https://www.googleapis.com/auth/cloud-platform"]
_MAX_MESSAGE_LENGTH = 400
_REASON = re.compile(r"[\w.-]{1,63}")
_BILL_LIMIT = "bytesBilledLimitExceeded"
_SILENCE = {"UNAVAILABLE", "DEADLINE_EXCEEDED"}
"""Statuses that gRPC's client gives to a call without a response."""

_NAME = re.compile(r"[\w.:-]{1,200}")
"""A name that can be copied into a shell as it is."""

_PERIMETER_ID = re.compile(r"vpcServiceControlsUniqueIdentifier:? *([\w-]{1,200})")


@dataclass(frozen=True, slots=True)
class GoogleService:
    """A service of Google, with its form of errors and the advice about them."""

    name: str
    code_and_message: Callable[[GoogleAPICallError], tuple[str, object]]
    advice: Mapping[str, str]  # by the last word of the code
    default_advice: str
    log_in: str


def load_credentials(credentials: Credentials | None = None) -> Credentials:
    """Return credentials with a token: gRPC would retry a refusal until the deadline.

    By default these are Application Default Credentials. Raises errors of google.auth.
    """
    import google.auth
    from google.auth.credentials import with_scopes_if_required
    from google.auth.transport.requests import Request

    if credentials is None:
        credentials, _ = google.auth.default(scopes=_SCOPES)
    else:
        credentials = with_scopes_if_required(credentials, _SCOPES)  # type: ignore[no-untyped-call]
    if not credentials.valid:
        # Google's default is 120 s, more than a tick of a sensor has.
        credentials.refresh(functools.partial(Request(), timeout=TOKEN_TIMEOUT))
    return credentials


@contextlib.contextmanager
def translate_google_errors(
    service: GoogleService, subject: str, *, if_denied: str | None = None
) -> Iterator[None]:
    """Raise an error of this project in place of one that Google's libraries raise.

    Its message begins with the subject, as "Table a.b.c". `if_denied` is the advice about a
    PERMISSION_DENIED whose details name no cause.
    """
    from google.api_core import exceptions
    from google.auth import exceptions as auth

    try:
        yield
    except auth.GoogleAuthError as error:
        kind, problem = _credentials_problem(service, error)
    except exceptions.RetryError as error:
        cause: Any = error.cause
        code, message, kind = type(cause).__name__, cause, OctogenBigQueryUnreachableError
        if isinstance(cause, exceptions.GoogleAPICallError):
            code, message = service.code_and_message(cause)
            code = with_reason(code, cause)
            if code not in _SILENCE:
                kind = OctogenBigQueryUnavailableError
        problem = (
            f"{service.name} did not answer in time ({code}: {shortened(message)}). "
            "Try again later."
        )
    except exceptions.GoogleAPICallError as error:
        code, message = service.code_and_message(error)
        shown = with_reason(code, error)
        kind, verb = OctogenBigQueryError, "refused"
        if _passes(error, code):
            kind, verb = OctogenBigQueryUnavailableError, "failed"
        denied = if_denied if code == "PERMISSION_DENIED" else None
        advice = service.advice.get(code.rpartition(" ")[2], service.default_advice)
        problem = (
            f"{service.name} {verb} ({shown}: {shortened(message)}). "
            f"{named_cause(error) or denied or advice}"
        )
    else:
        return
    raise kind(f"{subject}: {problem}")


def _credentials_problem(
    service: GoogleService, error: GoogleAuthError
) -> tuple[type[OctogenBigQueryError], str]:
    from google.auth import exceptions as auth

    reason = shortened(error)
    # The metadata server of a machine in Google Cloud: its silence is wrapped as a refusal.
    if isinstance(error, auth.TransportError) or isinstance(error.__cause__, auth.TransportError):
        problem = f"Google's token endpoint did not answer ({reason}). Try again later."
        return OctogenBigQueryUnreachableError, problem
    if error.retryable:
        problem = f"Google's token endpoint failed ({reason}). Try again later."
        return OctogenBigQueryUnavailableError, problem
    if isinstance(error, auth.DefaultCredentialsError):
        problem = f"there are no Google credentials ({reason}). {service.log_in}"
    else:
        problem = f"the Google credentials cannot be used ({reason}). {service.log_in}"
    return OctogenBigQueryError, problem


def _passes(error: GoogleAPICallError, code: str) -> bool:
    """True if the service failed or was called too often, and did not refuse the request."""
    from google.api_core import exceptions

    # BigQuery's client reports a job that exceeds its limit as a failure of the service.
    if isinstance(error, exceptions.MethodNotImplemented) or code.endswith(_BILL_LIMIT):
        return False
    return isinstance(
        error, exceptions.ServerError | exceptions.TooManyRequests | exceptions.Cancelled
    )


def status_code(error: object) -> str:
    """The name of the gRPC status of an error, or else the name of its class."""
    status = getattr(error, "grpc_status_code", None)
    return str(status.name) if status is not None else type(error).__name__


def with_reason(code: str, error: GoogleAPICallError) -> str:
    """A code, with the reason in the details of an error if no advice is given for it."""
    reason = str(error.reason or "")
    is_shown = _REASON.fullmatch(reason) and reason not in code and not named_cause(error)
    return f"{code} {reason}" if is_shown else code


def shortened(text: object) -> str:
    """A text, or that of an exception, on one line of at most 400 characters, without its dot."""
    return " ".join(str(text).split())[:_MAX_MESSAGE_LENGTH].rstrip(".")


def _grpc_code_and_message(error: GoogleAPICallError) -> tuple[str, object]:
    return status_code(error), error.message


def _bigquery_code_and_message(error: GoogleAPICallError) -> tuple[str, object]:
    details: Any = next(iter(error.errors or ()), {})
    if not isinstance(details, dict):  # the Storage Read API is called over gRPC
        return _grpc_code_and_message(error)
    # A refusal of Google's front end has no list of errors.
    reason = details.get("reason") or type(error).__name__
    return f"{error.code} {reason}", details.get("message") or error.message


def named_cause(error: GoogleAPICallError) -> str | None:
    """Say what the details of a refusal name as its cause, and what to do about it."""
    # An API or a perimeter is an obstacle that no grant on a resource removes.
    obstacle = _disabled_api(error) if is_disabled_api(error) else _perimeter(error)
    if obstacle:
        return obstacle
    permission = _stated(error, "permission")
    if error.reason != "IAM_PERMISSION_DENIED" or permission is None:
        return None
    return (
        f"The permission {permission} is missing: let an administrator of the resource grant these "
        "Google credentials a role that has it."
    )


def is_disabled_api(error: GoogleAPICallError) -> bool:
    """True if a refusal says that an API is disabled in the project that calls it."""
    return bool(error.reason == "SERVICE_DISABLED")


def missing_in_project(permission: str, role: str, project: str) -> str:
    """Say that a permission on a project is missing, which role has it and how to grant it."""
    return (
        f"The permission {permission} is missing: let an administrator of project {project} grant "
        f"these Google credentials {role}, with `gcloud projects add-iam-policy-binding {project} "
        f"--member=PRINCIPAL --role={role}`, where PRINCIPAL is their serviceAccount:… or user:…."
    )


def missing_on_exchange(permission: str, role: str, exchange: str) -> str:
    """Say that a permission on an exchange is missing, which role has it and who can grant it."""
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
    return (
        f"API {api} is not enabled in {where}: let an administrator run `gcloud services enable "
        f"{api} --project {project or 'PROJECT'}`, and try again a few minutes later."
    )


def _perimeter(error: GoogleAPICallError) -> str | None:
    in_message = _PERIMETER_ID.search(error.message or "")
    if not in_message and error.reason != "SECURITY_POLICY_VIOLATED":
        return None
    identifier = in_message.group(1) if in_message else _stated(error, "uid")
    return (
        "A perimeter of VPC Service Controls forbids it"
        f"{f' (unique identifier {identifier})' if identifier else ''}: let an administrator of "
        "the organization look it up in the VPC Service Controls troubleshooter, and allow these "
        "Google credentials to reach Analytics Hub and BigQuery across the perimeter."
    )


def _stated(error: GoogleAPICallError, key: str, *, prefix: str = "") -> str | None:
    """A name that the details state; None if there is none, or if it has odd characters."""
    value = str((error.metadata or {}).get(key, "")).removeprefix(prefix)
    return value if _NAME.fullmatch(value) else None


_LOG_IN = "Run `gcloud auth application-default login`, or"
_LOG_IN_TO_HUB = f"{_LOG_IN} let GOOGLE_APPLICATION_CREDENTIALS name a file with credentials."
_LOG_IN_TO_BIGQUERY = f"{_LOG_IN} give credentials to the BigQuery resource."

ANALYTICS_HUB = GoogleService(
    name="Analytics Hub",
    code_and_message=_grpc_code_and_message,
    advice={
        "INVALID_ARGUMENT": "Correct the name or the location; a linked dataset is where its "
        "listing is.",
        "NOT_FOUND": "Check the name; a listing may also have been withdrawn.",
        "PERMISSION_DENIED": "Let an administrator of the project named above grant these Google "
        "credentials the right to do this.",
        "UNAUTHENTICATED": _LOG_IN_TO_HUB,
    },
    default_advice="Try again later, or report it to Octogen.",
    log_in=_LOG_IN_TO_HUB,
)
"""Analytics Hub, over gRPC."""

BIGQUERY = GoogleService(
    name="BigQuery",
    code_and_message=_bigquery_code_and_message,
    advice={
        "PERMISSION_DENIED": "Let an administrator grant these Google credentials "
        "roles/bigquery.readSessionUser on the project that pays for the query.",
        "accessDenied": "Let an administrator grant these Google credentials what is missing: "
        "roles/bigquery.dataViewer on the dataset that is read, roles/bigquery.jobUser on the "
        "project that pays for the query.",
        "authError": _LOG_IN_TO_BIGQUERY,
        _BILL_LIMIT: "Nothing was billed. Read fewer columns or partitions of the "
        "table, or raise max_bytes_billed.",
        "invalidQuery": "Correct the SQL.",
        "notFound": "Check the name and the location: a query reaches the datasets of one location "
        "only. A linked dataset is gone when its listing was withdrawn or its subscription ended: "
        "then subscribe again.",
        "responseTooLarge": "Read fewer columns or rows, or write the result to a table of your "
        "own.",
        "resourcesExceeded": "Let the query read less, or do less at once.",
        "quotaExceeded": "Wait, or let an administrator raise the project's quota.",
        "stopped": "Somebody cancelled the job, or it took longer than it may. Run it again, or "
        "let the query read less.",
    },
    default_advice="Try again later.",
    log_in=_LOG_IN_TO_BIGQUERY,
)
"""BigQuery, over REST, and its Storage Read API, over gRPC."""
