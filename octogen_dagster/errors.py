"""The exception hierarchy, with `OctogenError` as its base.

Invalid arguments raise ValueError before anything is sent; pydantic's ValidationError is a
ValueError. `octogen_dagster.api.responses` converts HTTP responses to errors.
"""

from __future__ import annotations

import copy
import enum
import re
from datetime import UTC, datetime
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Self, TypeVar

if TYPE_CHECKING:
    import httpx

_Error = TypeVar("_Error", bound=Exception)
_HTTPS_URL = re.compile(r"https://[!-.0-~][!-~]{0,500}")


class Persistence(enum.Enum):
    """Whether the same call can succeed if it is repeated later."""

    PASSING = "temporary"
    """The cause is an overload, a rate limit, or a grant that has not arrived yet."""

    UNCLEAR = "possibly temporary"
    """The response was late, incomplete or unexpected. Check for an outage or a wrong base URL."""

    PERMANENT = "permanent"
    """The cause is a missing permission, a rejected credential, an invalid name, or no credit."""


class OctogenError(Exception):
    """Base class for all errors in this package.

    Attributes:
        persistence: Whether the error is temporary, possibly temporary or permanent.
    """

    persistence = Persistence.UNCLEAR

    def __reduce__(self) -> Any:
        # Bypasses `__init__`, because some subclasses build the message from other arguments.
        return _restored, (type(self), *self.args), self.__dict__


class UnsupportedDagsterError(OctogenError):
    """The installed Dagster version lacks a private attribute that this package uses.

    Args:
        name: The attribute, such as `DagsterInstance.get_ticks`.
    """

    persistence = Persistence.PERMANENT

    def __init__(self, name: str) -> None:
        super().__init__(
            f"octogen-dagster {version('octogen-dagster')} does not support Dagster "
            f"{version('dagster')}, which has no {name}. Install an earlier version of Dagster, "
            "and report this at https://github.com/octogen-ai/octogen-dagster/issues."
        )


def dagster_private(owner: object, name: str) -> Any:
    """Return a private attribute from a Dagster object.

    Raises:
        UnsupportedDagsterError: The installed Dagster version has no such attribute.
    """
    try:
        return getattr(owner, name)
    except AttributeError:
        raise UnsupportedDagsterError(f"{type(owner).__name__}.{name}") from None


def _restored(kind: type[_Error], *args: Any) -> _Error:
    return kind.__new__(kind, *args)


class MissingAPIKeyError(OctogenError):
    """No API key was passed or found in the environment. Raised before any request."""

    persistence = Persistence.PERMANENT

    def __init__(self) -> None:
        super().__init__(
            "No Octogen API key was found. Set OCTOGEN_PLATFORM_API_KEY (STOREROUTER_API_KEY and "
            "the older OCTO_API_KEY also work), or pass api_key in code. To work without a key, "
            "run `octogen-dagster sandbox` and export the variables that it prints."
        )


class OctogenComponentError(OctogenError):
    """A component's YAML is invalid. The message lists each mistake with its file, line and field.

    Raised when definitions load.
    """

    persistence = Persistence.PERMANENT


class MissingPackageError(OctogenError, ImportError):
    """A feature needs a package that is not installed. Raised when definitions load."""

    persistence = Persistence.PERMANENT


class OctogenConnectionError(OctogenError):
    """The service sent no response, or its response was cut off."""


class OctogenTimeoutError(OctogenConnectionError):
    """The service did not send its complete response in time."""


class OctogenBudgetError(OctogenError):
    """The next request would exceed the budget. It was not sent."""

    persistence = Persistence.PERMANENT


class OctogenPagingError(OctogenError):
    """A search could not be read completely, because its pages repeat, restart or never end."""


class OctogenSplitCatalogError(OctogenPagingError):
    """A catalog was read in parallel parts, but the parts overlapped or missed products."""

    persistence = Persistence.PERMANENT


class OctogenEmptyCatalogError(OctogenError):
    """A requested catalog is empty, or it does not belong to any of the requested hosts.

    The service responds in the same way if the catalog key does not exist.
    """

    persistence = Persistence.PERMANENT


class OctogenSnapshotError(OctogenError):
    """A snapshot could not be written, verified or found."""


class OctogenShrunkenSnapshotError(OctogenSnapshotError):
    """A whole-catalog read has no rows, or far fewer rows than the existing snapshot."""

    persistence = Persistence.PERMANENT


class OctogenPastPartitionError(OctogenSnapshotError):
    """A past or future partition was requested, but the service has current data only.

    Args:
        begin: Start of the partition's time window.
        end: End of the partition's time window, exclusive.
        now: Time to compare the window with. Defaults to the current time.
    """

    persistence = Persistence.PERMANENT

    def __init__(self, begin: datetime, end: datetime, now: datetime | None = None) -> None:
        self.begin, self.end = begin, end
        state, advice = "has not started yet", "Materialize it once it has started."
        if end <= (now or datetime.now(UTC)):
            state = "is over"
            advice = (
                "Materialize the current partition instead. If the Parquet file for the past "
                "partition was lost, restore it from a backup, such as the bucket's object "
                "versions."
            )
        super().__init__(
            f"The partition from {begin:%Y-%m-%d %H:%M} to {end:%Y-%m-%d %H:%M %Z} {state}, and "
            f"the service has current data only. {advice}"
        )


class OctogenNotificationError(OctogenError):
    """An alert notification could not be sent. The sensor retries on its next tick."""


class OctogenTableError(OctogenError):
    """A table destination rejected an operation, or cannot store a snapshot's values.

    Args:
        message: The destination, what failed, why, and what to do next.
        persistence: Whether the error is temporary. Defaults to the class attribute.
    """

    persistence = Persistence.PERMANENT

    def __init__(self, message: str, persistence: Persistence | None = None) -> None:
        super().__init__(message)
        if persistence is not None:
            self.persistence = persistence


class OctogenBigQueryError(OctogenError):
    """An Analytics Hub listing could not be found, subscribed to or read."""

    persistence = Persistence.PERMANENT


class OctogenBigQueryInputError(OctogenBigQueryError, ValueError):
    """A listing, dataset or project name is malformed. Raised before any request."""


class OctogenBigQueryAccessPendingError(OctogenBigQueryError):
    """Octogen's grant on the listing has not arrived yet. Try again in a few minutes."""

    persistence = Persistence.PASSING


class OctogenBigQueryUnavailableError(OctogenBigQueryError):
    """Analytics Hub or BigQuery did not respond in time, even after retries. Try again later."""

    persistence = Persistence.PASSING


class OctogenBigQueryUnreachableError(OctogenBigQueryUnavailableError):
    """Analytics Hub, BigQuery or Google's token endpoint did not return a complete response."""

    persistence = Persistence.UNCLEAR


class OctogenMCPError(OctogenError):
    """Octogen's MCP server rejected a call, or the call failed.

    Attributes:
        retry_after: Seconds to wait before a retry, or None if a retry cannot help.
        code: The failed tool's error code, such as `catalog_not_granted`, or None.
    """

    def __init__(
        self, message: str, retry_after: float | None = None, code: str | None = None
    ) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        passes = retry_after is not None
        self.persistence = Persistence.PASSING if passes else Persistence.PERMANENT
        self.code = code


class OctogenMCPAuthenticationError(OctogenMCPError):
    """The access token for Octogen's MCP server is missing or was rejected."""


class OctogenMCPRateLimitError(OctogenMCPError):
    """The organization's rate limit is exhausted, so Octogen's MCP server rejected the call."""


class OctogenAPIError(OctogenError):
    """The service returned an error response.

    Args:
        message: What failed, why, and what to do next.
        response: The response. The API key is removed from the response and its request. If an
            httpx2 client was passed to `OctogenClient`, this is an httpx2 response.
        detail: The body's `detail`: text, a list of field errors, an object or None.
        retry_after: Seconds to wait before a retry, or None if the service did not send a value.

    Attributes:
        status_code: The HTTP status.
        request_id: The `x-request-id` header. Include it when you report a problem to Octogen.
    """

    def __init__(
        self,
        message: str,
        response: httpx.Response,
        detail: Any = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.response = response
        self.status_code = response.status_code
        self.detail = detail
        self.request_id = response.headers.get("x-request-id")
        self.retry_after = retry_after

    def with_message(self, message: str) -> Self:
        """Return a copy of the error with a different message."""
        other = copy.copy(self)
        other.args = (message,)
        return other


class OctogenAuthenticationError(OctogenAPIError):
    """401: the API key is missing, malformed or revoked."""

    persistence = Persistence.PERMANENT


class OctogenInsufficientCreditError(OctogenAPIError):
    """402: the account is out of prepaid credit. The request was not charged."""

    persistence = Persistence.PERMANENT

    @property
    def top_up_url(self) -> str | None:
        """The https URL where you can buy credit, or None if the service did not send one."""
        return top_up_url(self.detail)


class OctogenForbiddenError(OctogenAPIError):
    """403: the API key is valid but lacks the required permission."""

    persistence = Persistence.PERMANENT


CONCERNS_ALL = (
    OctogenAuthenticationError,
    OctogenBudgetError,
    OctogenForbiddenError,
    OctogenInsufficientCreditError,
)
"""Errors caused by the API key or the budget. Further requests would raise the same error."""


class OctogenNotFoundError(OctogenAPIError):
    """404: the catalog, product or route does not exist for this API key."""

    persistence = Persistence.PERMANENT


class OctogenValidationError(OctogenAPIError):
    """422: the service rejected a parameter. `detail` lists the rejected fields."""

    persistence = Persistence.PERMANENT


class OctogenRateLimitError(OctogenAPIError):
    """429: the organization's rate limit is currently exhausted. Retry later."""

    persistence = Persistence.PASSING


class OctogenServerError(OctogenAPIError):
    """5xx: the service failed."""

    persistence = Persistence.PASSING


class OctogenShopError(OctogenServerError):
    """502 to 504: a lookup failed because of the product's shop. Other lookups might succeed."""


class OctogenUrlListError(OctogenAPIError):
    """The service rejected an operation on a coverage URL list. `code` contains the reason.

    There are no subclasses for the codes `url_list_deleting`, `url_list_limit_exceeded` and
    `invalid_cursor`.
    """

    persistence = Persistence.PERMANENT

    @property
    def code(self) -> str:
        """The service's error code, such as `url_list_deleting`."""
        return error_code(self.detail)


class OctogenUrlListNotFoundError(OctogenUrlListError, OctogenNotFoundError):
    """404 `url_list_not_found`: the API key's organization has no list with this ID."""


class OctogenUrlListNameConflictError(OctogenUrlListError):
    """409 `url_list_name_conflict`: another active list has this name.

    If the response to a first attempt was lost, that attempt might have created the list.
    """


class OctogenUrlListCapacityError(OctogenUrlListError):
    """409 `list_url_capacity_exceeded`: the list is full. No URL was added.

    Attributes:
        urls_left: Number of URLs that still fit into the list, or None if it is unknown.
    """

    urls_left: int | None = None


class OctogenUrlListUnavailableError(OctogenUrlListError, OctogenServerError):
    """503 `url_lists_unavailable` or 409 `url_list_migrating`: the request can be retried later."""

    persistence = Persistence.PASSING


class OctogenResponseError(OctogenAPIError):
    """The status is 2xx, but the body is not JSON or does not have the expected structure."""


def error_code(detail: Any) -> str:
    """Return the error code: `detail` itself, or `detail["code"]` if `detail` is an object."""
    code = detail.get("code") if isinstance(detail, dict) else detail
    return code if isinstance(code, str) else ""


def top_up_url(detail: Any) -> str | None:
    """Return the https URL for buying credit from the `detail` of a 402, or None."""
    url = detail.get("top_up_url") if isinstance(detail, dict) else None
    return url if isinstance(url, str) and _HTTPS_URL.fullmatch(url) else None
