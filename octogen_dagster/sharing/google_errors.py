"""Converts errors from Google's libraries to this package's errors, and adds advice."""

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
"""Time limit for a request to Google's token endpoint, in seconds."""

_SCOPES = ["https://www.googleapis.com/auth/cloud-platform"]
_MAX_MESSAGE_LENGTH = 400
_REASON = re.compile(r"[\w.-]{1,63}")
_BILL_LIMIT = "bytesBilledLimitExceeded"
_SILENCE = {"UNAVAILABLE", "DEADLINE_EXCEEDED"}
"""Statuses that the gRPC client reports if the server does not respond."""

_NAME = re.compile(r"[\w.:-]{1,200}")
"""Matches a name that is safe to paste into a shell."""

_PERIMETER_ID = re.compile(r"vpcServiceControlsUniqueIdentifier:? *([\w-]{1,200})")


@dataclass(frozen=True, slots=True)
class GoogleService:
    """A Google service, its error format and the advice for each error."""

    name: str
    code_and_message: Callable[[GoogleAPICallError], tuple[str, object]]
    advice: Mapping[str, str]  # by the code's last word
    default_advice: str
    log_in: str


def load_credentials(credentials: Credentials | None = None) -> Credentials:
    """Return credentials with a valid access token. Raises google.auth errors.

    Without a token, gRPC would retry rejected credentials until the deadline. If no credentials are
    passed, Application Default Credentials are used.
    """
    import google.auth
    from google.auth.credentials import with_scopes_if_required
    from google.auth.transport.requests import Request

    if credentials is None:
        credentials, _ = google.auth.default(scopes=_SCOPES)
    else:
        credentials = with_scopes_if_required(credentials, _SCOPES)  # type: ignore[no-untyped-call]
    if not credentials.valid:
        # Google's default is 120 s, longer than a sensor tick can last.
        credentials.refresh(functools.partial(Request(), timeout=TOKEN_TIMEOUT))
    return credentials


@contextlib.contextmanager
def translate_google_errors(
    service: GoogleService, subject: str, *, if_denied: str | None = None
) -> Iterator[None]:
    """Convert errors from Google's libraries to this package's errors.

    The message begins with the subject, such as "Table a.b.c". `if_denied` is the advice for a
    PERMISSION_DENIED error whose details do not contain the cause.
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
            f"{service.name} did not respond in time ({code}: {shortened(message)}). "
            "Try again later."
        )
    except exceptions.GoogleAPICallError as error:
        code, message = service.code_and_message(error)
        shown = with_reason(code, error)
        kind, verb = OctogenBigQueryError, "rejected the request"
        if _is_temporary(error, code):
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
    # A metadata server in Google Cloud that does not respond is reported as a rejection.
    if isinstance(error, auth.TransportError) or isinstance(error.__cause__, auth.TransportError):
        problem = f"Google's token endpoint did not respond ({reason}). Try again later."
        return OctogenBigQueryUnreachableError, problem
    if error.retryable:
        problem = f"Google's token endpoint failed ({reason}). Try again later."
        return OctogenBigQueryUnavailableError, problem
    if isinstance(error, auth.DefaultCredentialsError):
        problem = f"no Google credentials were found ({reason}). {service.log_in}"
    else:
        problem = f"the Google credentials cannot be used ({reason}). {service.log_in}"
    return OctogenBigQueryError, problem


def _is_temporary(error: GoogleAPICallError, code: str) -> bool:
    from google.api_core import exceptions

    # BigQuery's client reports a job over its billing limit as a service failure.
    if isinstance(error, exceptions.MethodNotImplemented) or code.endswith(_BILL_LIMIT):
        return False
    return isinstance(
        error, exceptions.ServerError | exceptions.TooManyRequests | exceptions.Cancelled
    )


def status_code(error: object) -> str:
    """Return an error's gRPC status, or its class name if it has no status."""
    status = getattr(error, "grpc_status_code", None)
    return str(status.name) if status is not None else type(error).__name__


def with_reason(code: str, error: GoogleAPICallError) -> str:
    """Append the reason from the error's details to the error code.

    The reason is omitted if the code contains it or `named_cause` explains it.
    """
    reason = str(error.reason or "")
    is_shown = _REASON.fullmatch(reason) and reason not in code and not named_cause(error)
    return f"{code} {reason}" if is_shown else code


def shortened(text: object) -> str:
    """Shorten text to one line of at most 400 characters, and remove the final period."""
    return " ".join(str(text).split())[:_MAX_MESSAGE_LENGTH].rstrip(".")


def _grpc_code_and_message(error: GoogleAPICallError) -> tuple[str, object]:
    return status_code(error), error.message


def _bigquery_code_and_message(error: GoogleAPICallError) -> tuple[str, object]:
    details: Any = next(iter(error.errors or ()), {})
    if not isinstance(details, dict):  # the Storage Read API is called over gRPC
        return _grpc_code_and_message(error)
    # A rejection by Google's front end contains no list of errors.
    reason = details.get("reason") or type(error).__name__
    return f"{error.code} {reason}", details.get("message") or error.message


def named_cause(error: GoogleAPICallError) -> str | None:
    """Explain a rejection and how to fix it. Return None if the cause is unknown."""
    # A disabled API or a perimeter comes first: a grant on a resource would not help.
    obstacle = _disabled_api(error) if is_disabled_api(error) else _perimeter(error)
    if obstacle:
        return obstacle
    permission = _stated(error, "permission")
    if error.reason != "IAM_PERMISSION_DENIED" or permission is None:
        return None
    return (
        f"The permission {permission} is missing. Ask an administrator to grant these Google "
        "credentials a role with this permission."
    )


def is_disabled_api(error: GoogleAPICallError) -> bool:
    """Return True if a call was rejected because the calling project has not enabled an API."""
    return bool(error.reason == "SERVICE_DISABLED")


def missing_in_project(permission: str, role: str, project: str) -> str:
    """Describe a missing permission on a project, and how to grant it."""
    return (
        f"The permission {permission} is missing. Ask an administrator of project {project} to "
        f"grant these Google credentials {role}, with `gcloud projects add-iam-policy-binding "
        f"{project} --member=PRINCIPAL --role={role}`. Replace PRINCIPAL with the principal of "
        "these credentials (serviceAccount:… or user:…)."
    )


def missing_on_exchange(permission: str, role: str, exchange: str) -> str:
    """Describe a missing permission on an exchange, and who can grant it."""
    return (
        f"The permission {permission} is missing. Ask the publisher of exchange {exchange} to "
        f"grant these Google credentials {role} on BigQuery's Sharing page in the Google console "
        "(gcloud cannot do this). For Octogen's exchange, ask Octogen or use OctogenSource, which "
        "requires no role on the exchange."
    )


def _disabled_api(error: GoogleAPICallError) -> str:
    api = _stated(error, "service") or "analyticshub.googleapis.com"
    project = _stated(error, "consumer", prefix="projects/")
    where = f"project {project}" if project else "the project used by these Google credentials"
    return (
        f"The API {api} is not enabled in {where}. Ask an administrator to run `gcloud services "
        f"enable {api} --project {project or 'PROJECT'}`, then try again after a few minutes."
    )


def _perimeter(error: GoogleAPICallError) -> str | None:
    in_message = _PERIMETER_ID.search(error.message or "")
    if not in_message and error.reason != "SECURITY_POLICY_VIOLATED":
        return None
    identifier = in_message.group(1) if in_message else _stated(error, "uid")
    return (
        "A VPC Service Controls perimeter blocks the request"
        f"{f' (unique identifier {identifier})' if identifier else ''}. Ask an organization "
        "administrator to find the request in the VPC Service Controls troubleshooter and to allow "
        "these Google credentials to access Analytics Hub and BigQuery across the perimeter."
    )


def _stated(error: GoogleAPICallError, key: str, *, prefix: str = "") -> str | None:
    """Return a name from the error's details, or None if the name is missing or malformed."""
    value = str((error.metadata or {}).get(key, "")).removeprefix(prefix)
    return value if _NAME.fullmatch(value) else None


_LOG_IN = "Run `gcloud auth application-default login`, or"
_LOG_IN_TO_HUB = f"{_LOG_IN} set GOOGLE_APPLICATION_CREDENTIALS to a credentials file."
_LOG_IN_TO_BIGQUERY = f"{_LOG_IN} configure credentials on the BigQuery resource."

ANALYTICS_HUB = GoogleService(
    name="Analytics Hub",
    code_and_message=_grpc_code_and_message,
    advice={
        "INVALID_ARGUMENT": "Correct the name or the location. A linked dataset must be in its "
        "listing's location.",
        "NOT_FOUND": "Check the name. The listing might have been withdrawn.",
        "PERMISSION_DENIED": "Ask an administrator of the project named above to grant these "
        "Google credentials the required role.",
        "UNAUTHENTICATED": _LOG_IN_TO_HUB,
    },
    default_advice="Try again later, or report this to Octogen.",
    log_in=_LOG_IN_TO_HUB,
)
"""Analytics Hub over gRPC."""

BIGQUERY = GoogleService(
    name="BigQuery",
    code_and_message=_bigquery_code_and_message,
    advice={
        "PERMISSION_DENIED": "Ask an administrator to grant these Google credentials "
        "roles/bigquery.readSessionUser on the project that pays for the query.",
        "accessDenied": "Ask an administrator to grant these Google credentials the missing role: "
        "roles/bigquery.dataViewer on the dataset, or roles/bigquery.jobUser on the project that "
        "pays for the query.",
        "authError": _LOG_IN_TO_BIGQUERY,
        _BILL_LIMIT: "Nothing was billed. Read fewer columns or partitions, or raise "
        "max_bytes_billed.",
        "invalidQuery": "Correct the SQL.",
        "notFound": "Check the name and the location, because a query can only use datasets in "
        "one location. A linked dataset disappears when its listing is withdrawn or its "
        "subscription ends. In this case, subscribe again.",
        "responseTooLarge": "Read fewer columns or rows, or write the result to a table in your "
        "project.",
        "resourcesExceeded": "Simplify the query, or read less data.",
        "quotaExceeded": "Wait, or ask an administrator to raise the project's quota.",
        "stopped": "The job was cancelled or exceeded its time limit. Run it again, or read less "
        "data.",
    },
    default_advice="Try again later.",
    log_in=_LOG_IN_TO_BIGQUERY,
)
"""BigQuery over REST, and the Storage Read API over gRPC."""
