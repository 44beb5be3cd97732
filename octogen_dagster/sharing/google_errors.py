"""Translates the errors of Google's libraries into errors of this project."""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from octogen_dagster.errors import (
    OctogenBigQueryError,
    OctogenBigQueryUnavailableError,
    OctogenBigQueryUnreachableError,
)
from octogen_dagster.sharing.denials import named_cause

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from google.api_core.exceptions import GoogleAPICallError
    from google.auth.exceptions import GoogleAuthError

_MAX_MESSAGE_LENGTH = 400
_REASON = re.compile(r"[\w.-]{1,63}")
_SILENCE = {"UNAVAILABLE", "DEADLINE_EXCEEDED"}
"""Statuses that gRPC's client gives to a call without a response."""


@dataclass(frozen=True, slots=True)
class GoogleService:
    """A service of Google, with its form of errors and the advice about them.

    Attributes:
        name: Its name in messages.
        code_and_message: Extracts the code and the text of an error.
        advice: Advice for the user, by the last word of the code.
        default_advice: Advice about any other code.
        log_in: Advice about credentials.
    """

    name: str
    code_and_message: Callable[[GoogleAPICallError], tuple[str, object]]
    advice: Mapping[str, str]
    default_advice: str
    log_in: str


@contextlib.contextmanager
def translate_google_errors(
    service: GoogleService, subject: str, *, if_denied: str | None = None
) -> Iterator[None]:
    """Raise an error of this project in place of one that Google's libraries raise.

    Args:
        service: The service that is called.
        subject: The subject of the call, as "Table a.b.c"; the message begins with it.
        if_denied: Advice about PERMISSION_DENIED whose details name no cause; by default that of
            the service.

    Raises:
        OctogenBigQueryUnreachableError: The service or Google's token endpoint sent no response.
        OctogenBigQueryUnavailableError: The service failed, or was called too often.
        OctogenBigQueryError: The service refused, or the credentials cannot be used.
    """
    from google.api_core import exceptions
    from google.auth import exceptions as auth

    try:
        yield
    except auth.GoogleAuthError as error:
        kind, problem = _credentials_problem(service, error)
    except exceptions.RetryError as error:
        code, message = _cause(service, error.cause)
        answered = isinstance(error.cause, exceptions.GoogleAPICallError) and code not in _SILENCE
        kind = OctogenBigQueryUnavailableError if answered else OctogenBigQueryUnreachableError
        problem = (
            f"{service.name} did not answer in time ({code}: {shortened(message)}). "
            "Try again later."
        )
    except exceptions.GoogleAPICallError as error:
        code, message = service.code_and_message(error)
        shown = with_reason(code, error)
        kind, verb = OctogenBigQueryError, "refused"
        if _passes(error):
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


def _passes(error: GoogleAPICallError) -> bool:
    """True if the service failed or was called too often, and did not refuse the request."""
    from google.api_core import exceptions

    if isinstance(error, exceptions.MethodNotImplemented):
        return False
    return isinstance(
        error, exceptions.ServerError | exceptions.TooManyRequests | exceptions.Cancelled
    )


def status_code(error: object) -> str:
    """The name of the gRPC status of an error, or else the name of its class.

    Args:
        error: An exception of Google's libraries.
    """
    status = getattr(error, "grpc_status_code", None)
    return str(status.name) if status is not None else type(error).__name__


def with_reason(code: str, error: GoogleAPICallError) -> str:
    """A code, with the reason in the details of an error if no advice is given for it."""
    reason = str(error.reason or "")
    is_shown = _REASON.fullmatch(reason) and reason not in code and not named_cause(error)
    return f"{code} {reason}" if is_shown else code


def shortened(text: object) -> str:
    """A text on one line, cut to 400 characters, without the dot at its end.

    Args:
        text: The text, or an exception.
    """
    return " ".join(str(text).split())[:_MAX_MESSAGE_LENGTH].rstrip(".")


def _cause(service: GoogleService, cause: object) -> tuple[str, object]:
    from google.api_core.exceptions import GoogleAPICallError

    if isinstance(cause, GoogleAPICallError):
        code, message = service.code_and_message(cause)
        return with_reason(code, cause), message
    return type(cause).__name__, cause


def _grpc_code_and_message(error: GoogleAPICallError) -> tuple[str, object]:
    return status_code(error), error.message


def _bigquery_code_and_message(error: GoogleAPICallError) -> tuple[str, object]:
    details: Any = next(iter(error.errors or ()), {})
    if not isinstance(details, dict):  # the Storage Read API is called over gRPC
        return _grpc_code_and_message(error)
    # A refusal of Google's front end has no list of errors.
    reason = details.get("reason") or type(error).__name__
    return f"{error.code} {reason}", details.get("message") or error.message


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
        "project that pays for the query, roles/bigquery.dataEditor on the dataset that is "
        "written to.",
        "authError": _LOG_IN_TO_BIGQUERY,
        "bytesBilledLimitExceeded": "Nothing was billed. Read fewer columns or partitions of the "
        "table, or raise max_bytes_billed of the asset.",
        "invalidQuery": "Correct the SQL.",
        "notFound": "Check the name and the location: a query reaches the datasets of one location "
        "only. A linked dataset is gone when its listing was withdrawn or its subscription ended: "
        "then subscribe again.",
        "responseTooLarge": "Read fewer columns or rows, or let query_linked_products write the "
        "result to a table.",
        "resourcesExceeded": "Let the query read less, or do less at once.",
        "quotaExceeded": "Wait, or let an administrator raise the project's quota.",
        "stopped": "Somebody cancelled the job, or it took longer than it may. Run it again, or "
        "let the query read less.",
    },
    default_advice="Try again later.",
    log_in=_LOG_IN_TO_BIGQUERY,
)
"""BigQuery, over REST, and its Storage Read API, over gRPC."""
