"""Every error of the project, in one hierarchy, and the turning of an HTTP answer into one.

* OctogenError
  * MissingAPIKeyError
  * OctogenConnectionError          no answer: DNS, refused, reset, cut off
    * OctogenTimeoutError
  * OctogenPagingError              a search whose pages do not come to an end
  * OctogenSnapshotError            a snapshot that cannot be written or read
    * OctogenPastPartitionError       a snapshot of a time that is not now
  * OctogenAPIError                 an answer that is not a result
    * OctogenAuthenticationError      401
    * OctogenInsufficientCreditError  402
    * OctogenForbiddenError           403
    * OctogenNotFoundError            404
    * OctogenValidationError          422
    * OctogenRateLimitError           429
    * OctogenServerError              5xx
    * OctogenResponseError            2xx with a body that is not what was asked for
  * OctogenBigQueryError            a listing that cannot be found, subscribed to or read
    * OctogenBigQueryInputError       a name that cannot be one; a ValueError too
    * OctogenBigQueryAccessPendingError  Octogen's grant on the listing has not arrived yet
    * OctogenBigQueryUnavailableError  Google did not answer in time, whatever was tried
  * OctogenMCPError                 Octogen's MCP did not do what was asked
    * OctogenMCPAuthenticationError   no access token, or one that is refused
    * OctogenMCPRateLimitError        the organisation's request budget is spent for now

Arguments that are wrong before anything is sent raise ValueError (pydantic's
ValidationError is one).
"""

from __future__ import annotations

from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

import msgspec
from typing_extensions import Self

if TYPE_CHECKING:
    from collections.abc import Mapping

    import httpx

MAX_BODY_IN_MESSAGE = 200


class OctogenError(Exception):
    """Base of everything this project raises on purpose."""


class MissingAPIKeyError(OctogenError):
    """No API key was given and none is in the environment. Raised before any request."""

    def __init__(self) -> None:
        super().__init__(
            "No Octogen API key: pass api_key or set OCTO_API_KEY (OCTOGEN_PLATFORM_API_KEY is "
            "read too). To work without a key, run `octogen-dagster sandbox` and export what it "
            "prints."
        )

    def __reduce__(self) -> tuple[type[Self], tuple[()]]:
        return type(self), ()


class OctogenConnectionError(OctogenError):
    """The service did not answer, or its answer was cut off."""


class OctogenTimeoutError(OctogenConnectionError):
    """The service did not answer in time."""


class OctogenPagingError(OctogenError):
    """The pages of a search loop or keep starting again, so it cannot be read completely."""


class OctogenSnapshotError(OctogenError):
    """A snapshot could not be written, verified or found."""


class OctogenPastPartitionError(OctogenSnapshotError):
    """A partition of another time than now was asked of a service that only knows the present.

    Args:
        begin: When its time begins.
        end: When its time ends.
    """

    def __init__(self, begin: datetime, end: datetime) -> None:
        self.begin, self.end = begin, end
        over = end <= datetime.now(timezone.utc)
        super().__init__(
            f"The partition from {begin:%Y-%m-%d %H:%M} to {end:%Y-%m-%d %H:%M %Z} "
            f"{'is over' if over else 'has not begun'}, and the service knows only the present: "
            "what it says now must not be stored under another time. "
            + (
                "No pages of that time are landed, so it cannot be rebuilt. Materialize the "
                "partition of now; with ParquetSnapshotIOManager(keep_pages=True) it can be "
                "rebuilt later."
                if over
                else "Materialize it when its time has come."
            )
        )

    def __reduce__(self) -> tuple[type[Self], tuple[datetime, datetime]]:
        return type(self), (self.begin, self.end)


class OctogenBigQueryError(OctogenError):
    """A listing in Analytics Hub could not be found, subscribed to or read."""


class OctogenBigQueryInputError(OctogenBigQueryError, ValueError):
    """A listing, dataset or project has a name that cannot be one. Raised before any request."""


class OctogenBigQueryAccessPendingError(OctogenBigQueryError):
    """Octogen's grant on the listing has not arrived yet; try again in a few minutes."""


class OctogenBigQueryUnavailableError(OctogenBigQueryError):
    """Analytics Hub did not answer in time, however often it was asked; try again later."""


class OctogenMCPError(OctogenError):
    """Octogen's MCP answered, and the answer is not a result.

    Attributes:
        retry_after: Seconds the service asks to wait before the same call; None when it may not
            be repeated as it is.
    """

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after

    def __reduce__(self) -> tuple[type[Self], tuple[str, float | None]]:
        return type(self), (str(self), self.retry_after)


class OctogenMCPAuthenticationError(OctogenMCPError):
    """There is no access token for Octogen's MCP, or it is refused."""


class OctogenMCPRateLimitError(OctogenMCPError):
    """The organisation's request budget is spent for now; the call was not carried out."""


class OctogenAPIError(OctogenError):
    """The service answered, and the answer is not a result.

    Attributes:
        status_code: HTTP status.
        detail: What the body's `detail` holds: text, a list of field errors, an object or None.
        response: The answer; its request carries no key.
        request_id: The `x-request-id` header, to quote to Octogen.
        retry_after: Seconds the service asks to wait, from the `Retry-After` header.
    """

    def __init__(self, message: str, response: httpx.Response) -> None:
        super().__init__(message)
        self.response = response
        self.status_code = response.status_code
        self.detail = _detail(response)
        self.request_id = response.headers.get("x-request-id")
        self.retry_after = retry_after_seconds(response.headers)

    def __reduce__(self) -> tuple[type[Self], tuple[str, httpx.Response]]:
        return type(self), (str(self), self.response)


class OctogenAuthenticationError(OctogenAPIError):
    """401: the key is missing, malformed or revoked."""


class OctogenInsufficientCreditError(OctogenAPIError):
    """402: prepaid credit is spent."""


class OctogenForbiddenError(OctogenAPIError):
    """403: the key is valid and may not do this."""


class OctogenNotFoundError(OctogenAPIError):
    """404: no such catalog, product or route for this key."""


class OctogenValidationError(OctogenAPIError):
    """422: the service refused a parameter; `detail` lists the fields."""


class OctogenRateLimitError(OctogenAPIError):
    """429: the organisation's request budget is spent for now."""


class OctogenServerError(OctogenAPIError):
    """5xx: the service failed."""


class OctogenResponseError(OctogenAPIError):
    """A success status with a body that is not JSON or not the expected shape."""


_BY_STATUS: Mapping[int, tuple[type[OctogenAPIError], str]] = {
    401: (
        OctogenAuthenticationError,
        "Check that OCTO_API_KEY holds a current key; a revoked one is replaced in the partner "
        "portal.",
    ),
    402: (OctogenInsufficientCreditError, "The prepaid credit is spent: top it up and run again."),
    403: (
        OctogenForbiddenError,
        "The key is valid but not allowed to do this: ask Octogen for the permission.",
    ),
    404: (OctogenNotFoundError, "Check the name, or ask Octogen for access."),
    422: (OctogenValidationError, "Correct the field named above."),
    429: (
        OctogenRateLimitError,
        "The organisation's request budget is spent: run fewer reads at once or try later.",
    ),
}


def error_from_response(response: httpx.Response, subject: str) -> OctogenAPIError:
    """The error that an answer other than 2xx stands for.

    Args:
        response: The answer, read, with no key left in it.
        subject: What was asked for, to begin the message with: "Catalog 'acme'".
    """
    status = response.status_code
    if 300 <= status < 400:
        target = _redirect_host(response) or "another address"
        kind, advice = (
            OctogenAPIError,
            f"It redirects to {target}, and redirects are not followed so that the key stays with "
            "the configured host: correct base_url.",
        )
    elif status >= 500:
        kind, advice = OctogenServerError, "The service failed: try again later."
    else:
        kind, advice = _BY_STATUS.get(status, (OctogenAPIError, "See the detail above."))
    detail = _detail(response)
    if status == 404 and detail == "catalog_not_found":
        return kind(
            f"{subject} is not granted to this key (404 catalog_not_found"
            f"{_request_id(response)}). Ask Octogen for access or correct the catalog key.",
            response,
        )
    if isinstance(detail, dict) and isinstance(detail.get("top_up_url"), str):
        advice = f"The prepaid credit is spent: top it up at {detail['top_up_url']}."
    return kind(
        f"{subject} failed: {status} {_describe(detail, response)}{_request_id(response)}. "
        f"{advice}",
        response,
    )


def unexpected_body(
    response: httpx.Response, subject: str, problem: str, advice: str = ""
) -> OctogenResponseError:
    """The error for a success status whose body cannot be used.

    Args:
        response: The answer, read, with no key left in it.
        subject: What was asked for, to begin the message with.
        problem: What is wrong with the body, as a noun phrase.
        advice: What to do; by default, to report it.
    """
    content_type = response.headers.get("content-type", "no content type")
    advice = advice or "Check base_url, or report it to Octogen."
    return OctogenResponseError(
        f"{subject} was answered with {response.status_code} and {problem} "
        f"({content_type}{_request_id(response)}). {advice}",
        response,
    )


def retry_after_seconds(headers: httpx.Headers) -> float | None:
    """Seconds to wait by a `Retry-After` header, in whole seconds or as an HTTP date."""
    value = headers.get("retry-after", "").strip()
    if not value:
        return None
    if value.isascii() and value.isdigit():
        return float(value)
    try:
        at = parsedate_to_datetime(value)
        now = (
            parsedate_to_datetime(headers["date"])
            if "date" in headers
            else datetime.now(timezone.utc)
        )
        return max(0.0, (at - now).total_seconds())
    except (TypeError, ValueError):
        return None


def field_path(entry: Mapping[str, Any]) -> list[Any]:
    """Where the field that an entry of a 422's detail is about stands in the request."""
    loc = entry.get("loc") or []
    return loc if isinstance(loc, list) else [loc]


def _detail(response: httpx.Response) -> Any:
    import httpx

    try:
        body = msgspec.json.decode(response.content)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, httpx.ResponseNotRead):
        return None
    return body.get("detail") if isinstance(body, dict) else None


def _redirect_host(response: httpx.Response) -> str | None:
    import httpx

    try:
        return httpx.URL(response.headers.get("location", "")).host
    except httpx.InvalidURL:
        return None


def _request_id(response: httpx.Response) -> str:
    request_id = response.headers.get("x-request-id")
    return f", request {request_id}" if request_id else ""


def _describe(detail: Any, response: httpx.Response) -> str:
    if isinstance(detail, str):
        return detail
    if isinstance(detail, list):
        return "; ".join(_describe_field(entry) for entry in detail[:5])
    if isinstance(detail, dict):
        return str(detail.get("code") or detail.get("message") or detail)[:MAX_BODY_IN_MESSAGE]
    body = " ".join(response.text.split())
    return (body[:MAX_BODY_IN_MESSAGE] or response.reason_phrase).rstrip(".")


def _describe_field(entry: Any) -> str:
    if not isinstance(entry, dict):
        return str(entry)[:MAX_BODY_IN_MESSAGE]
    loc = [str(part) for part in field_path(entry) if part != "body"]
    return f"{'.'.join(loc) or 'request'}: {entry.get('msg', 'invalid')}"
