"""The errors of the whole project: one hierarchy below `OctogenError`.

Arguments that are refused before anything is sent raise ValueError; pydantic's
ValidationError is a ValueError.

How an HTTP response becomes an error is in `octogen_dagster.api.responses`.
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
    """The persistence of an error, if the same call is repeated unchanged."""

    PASSING = "passes by itself"
    """An overload, a rate limit, a grant that has not arrived."""

    UNCLEAR = "may pass"
    """No complete response in time, or one that makes no sense: a failure, or a wrong address."""

    PERMANENT = "lasts until somebody acts"
    """Missing rights, refused credentials, invalid names, spent credit."""


class OctogenError(Exception):
    """Base of all errors that this project raises on purpose.

    Attributes:
        persistence: How long the error lasts.
    """

    persistence = Persistence.UNCLEAR

    def __reduce__(self) -> Any:
        # Not through `__init__`, which in some classes makes the message of other arguments.
        return _restored, (type(self), *self.args), self.__dict__


class UnsupportedDagsterError(OctogenError):
    """The installed Dagster lacks a private name that this package uses.

    Args:
        name: The name, such as `DagsterInstance.get_ticks`.
    """

    persistence = Persistence.PERMANENT

    def __init__(self, name: str) -> None:
        super().__init__(
            f"octogen-dagster {version('octogen-dagster')} does not support Dagster "
            f"{version('dagster')}, which has no {name}. Install an earlier Dagster and report "
            "this at https://github.com/octogen-ai/octogen-dagster/issues."
        )


def dagster_private(owner: object, name: str) -> Any:
    """Return a private attribute of Dagster.

    Raises:
        UnsupportedDagsterError: The installed Dagster has no such attribute.
    """
    try:
        return getattr(owner, name)
    except AttributeError:
        raise UnsupportedDagsterError(f"{type(owner).__name__}.{name}") from None


def _restored(kind: type[_Error], *args: Any) -> _Error:
    return kind.__new__(kind, *args)


class MissingAPIKeyError(OctogenError):
    """No API key was given and none is in the environment. Raised before any request."""

    persistence = Persistence.PERMANENT

    def __init__(self) -> None:
        super().__init__(
            "No Octogen API key: set OCTOGEN_PLATFORM_API_KEY (STOREROUTER_API_KEY and the older "
            "OCTO_API_KEY are read too), or api_key in code. To work without a key, run "
            "`octogen-dagster sandbox` and export what it prints."
        )


class OctogenComponentError(OctogenError):
    """The YAML of a component is not valid: the message has file, line and field of each mistake.

    Raised when the definitions load.
    """

    persistence = Persistence.PERMANENT


class MissingPackageError(OctogenError, ImportError):
    """A feature needs a package that is not installed. Raised when definitions load."""

    persistence = Persistence.PERMANENT


class OctogenConnectionError(OctogenError):
    """The service sent no response, or its response was cut off."""


class OctogenTimeoutError(OctogenConnectionError):
    """The service did not send its whole response in time."""


class OctogenBudgetError(OctogenError):
    """The next request would exceed the budget. It was not sent."""

    persistence = Persistence.PERMANENT


class OctogenPagingError(OctogenError):
    """The pages of a search loop, restart or never end, so it cannot be read completely."""


class OctogenSplitCatalogError(OctogenPagingError):
    """A catalog was read in several walks that are not disjoint or left out products."""

    persistence = Persistence.PERMANENT


class OctogenEmptyCatalogError(OctogenError):
    """A catalog that is named has no products, or serves none of the hosts that are named.

    It is as if its key did not exist.
    """

    persistence = Persistence.PERMANENT


class OctogenSnapshotError(OctogenError):
    """A snapshot could not be written, verified or found."""


class OctogenShrunkenSnapshotError(OctogenSnapshotError):
    """A whole catalog has no rows, or far fewer than the snapshot that it would replace."""

    persistence = Persistence.PERMANENT


class OctogenPastPartitionError(OctogenSnapshotError):
    """A partition of a past or future time was requested, but the service knows only the present.

    Args:
        begin: Start of the partition's time window.
        end: End of the partition's time window, exclusive.
        now: The time to compare the window with; the present by default.
    """

    persistence = Persistence.PERMANENT

    def __init__(self, begin: datetime, end: datetime, now: datetime | None = None) -> None:
        self.begin, self.end = begin, end
        state, advice = "has not begun", "Materialize it when its time has come."
        if end <= (now or datetime.now(UTC)):
            state = "is over"
            advice = (
                "Materialize the partition of now. The past is in the Parquet file that was "
                "written then: if it was lost, restore it from a backup, such as the object "
                "versions of its bucket."
            )
        super().__init__(
            f"The partition from {begin:%Y-%m-%d %H:%M} to {end:%Y-%m-%d %H:%M %Z} {state}, and "
            "the service knows only the present: what it says now must not be stored under another "
            f"time. {advice}"
        )


class OctogenNotificationError(OctogenError):
    """A message about alerts could not be sent. The sensor sends it again with its next tick."""


class OctogenTableError(OctogenError):
    """A destination of tables refused something, or it cannot hold what a snapshot has.

    Args:
        message: Which destination, what failed, why, and what to do next.
        persistence: How long it lasts; by default as the class says.
    """

    persistence = Persistence.PERMANENT

    def __init__(self, message: str, persistence: Persistence | None = None) -> None:
        super().__init__(message)
        if persistence is not None:
            self.persistence = persistence


class OctogenBigQueryError(OctogenError):
    """A listing in Analytics Hub could not be found, subscribed to or read."""

    persistence = Persistence.PERMANENT


class OctogenBigQueryInputError(OctogenBigQueryError, ValueError):
    """The name of a listing, dataset or project is malformed. Raised before any request."""


class OctogenBigQueryAccessPendingError(OctogenBigQueryError):
    """Octogen's grant on the listing has not arrived yet; try again in a few minutes."""

    persistence = Persistence.PASSING


class OctogenBigQueryUnavailableError(OctogenBigQueryError):
    """Analytics Hub or BigQuery did not respond in time, retries included; try again later."""

    persistence = Persistence.PASSING


class OctogenBigQueryUnreachableError(OctogenBigQueryUnavailableError):
    """Analytics Hub, BigQuery or Google's token endpoint sent no complete response."""

    persistence = Persistence.UNCLEAR


class OctogenMCPError(OctogenError):
    """Octogen's MCP server refused or failed a call.

    Attributes:
        retry_after: Seconds to wait before the same call is repeated; None if repeating it
            unchanged cannot help.
        code: The code of a tool that failed, such as `catalog_not_granted`; None if it gave none.
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
    """The access token for Octogen's MCP server is missing or refused."""


class OctogenMCPRateLimitError(OctogenMCPError):
    """The organization's rate limit is used up for now; the call was not carried out."""


class OctogenAPIError(OctogenError):
    """The service sent a response that is not a result.

    Args:
        message: What failed, why, and what to do next.
        response: The response, with no API key left in it or in its request; one of httpx2 if such
            a client was passed to `OctogenClient`.
        detail: The `detail` of the body: text, a list of field errors, an object or None.
        retry_after: Seconds that the service asks to wait, if it does.

    Attributes:
        status_code: The HTTP status.
        request_id: The `x-request-id` header, to quote to Octogen.
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
        """Return the same error with another message."""
        other = copy.copy(self)
        other.args = (message,)
        return other


class OctogenAuthenticationError(OctogenAPIError):
    """401: the API key is missing, malformed or revoked."""

    persistence = Persistence.PERMANENT


class OctogenInsufficientCreditError(OctogenAPIError):
    """402: prepaid credit is spent. The request was not charged."""

    persistence = Persistence.PERMANENT

    @property
    def top_up_url(self) -> str | None:
        """The https address where credit is bought; None if the service names none."""
        return top_up_url(self.detail)


class OctogenForbiddenError(OctogenAPIError):
    """403: the API key is valid but lacks the permission."""

    persistence = Persistence.PERMANENT


CONCERNS_ALL = (
    OctogenAuthenticationError,
    OctogenBudgetError,
    OctogenForbiddenError,
    OctogenInsufficientCreditError,
)
"""Errors of the key or its budget, which every other request would meet as well."""


class OctogenNotFoundError(OctogenAPIError):
    """404: the catalog, product or route does not exist for this API key."""

    persistence = Persistence.PERMANENT


class OctogenValidationError(OctogenAPIError):
    """422: the service refused a parameter; `detail` lists the fields."""

    persistence = Persistence.PERMANENT


class OctogenRateLimitError(OctogenAPIError):
    """429: the organization's rate limit is used up for now; retry later."""

    persistence = Persistence.PASSING


class OctogenServerError(OctogenAPIError):
    """5xx: the service failed."""

    persistence = Persistence.PASSING


class OctogenShopError(OctogenServerError):
    """502 to 504 of a lookup: the product's shop failed, and other lookups may well succeed."""


class OctogenUrlListError(OctogenAPIError):
    """The service refused an operation on coverage URL lists; `code` says why.

    Codes without a class of their own are `url_list_deleting`, `url_list_limit_exceeded` and
    `invalid_cursor`.
    """

    persistence = Persistence.PERMANENT

    @property
    def code(self) -> str:
        """The service's reason, such as `url_list_deleting`."""
        return error_code(self.detail)


class OctogenUrlListNotFoundError(OctogenUrlListError, OctogenNotFoundError):
    """404 `url_list_not_found`: the organization of the API key has no list with this id."""


class OctogenUrlListNameConflictError(OctogenUrlListError):
    """409 `url_list_name_conflict`: a live list has this name.

    It may be the very one that the request made, if the answer to its first attempt was lost.
    """


class OctogenUrlListCapacityError(OctogenUrlListError):
    """409 `list_url_capacity_exceeded`: the URLs do not fit, and none of the request was added.

    Attributes:
        urls_left: The number of URLs that still fit into the list; None if it is not known.
    """

    def __init__(
        self,
        message: str,
        response: httpx.Response,
        detail: Any = None,
        retry_after: float | None = None,
        urls_left: int | None = None,
    ) -> None:
        super().__init__(message, response, detail, retry_after)
        self.urls_left = urls_left


class OctogenUrlListUnavailableError(OctogenUrlListError, OctogenServerError):
    """503 `url_lists_unavailable` or 409 `url_list_migrating`: retry later, which is harmless."""

    persistence = Persistence.PASSING


class OctogenResponseError(OctogenAPIError):
    """2xx, but the body is not JSON or does not have the expected shape."""


def error_code(detail: Any) -> str:
    """The machine-readable reason in the `detail` of an error: the text, or an object's `code`."""
    code = detail.get("code") if isinstance(detail, dict) else detail
    return code if isinstance(code, str) else ""


def top_up_url(detail: Any) -> str | None:
    """The https address in the `detail` of a 402 where credit is bought; None if there is none."""
    url = detail.get("top_up_url") if isinstance(detail, dict) else None
    return url if isinstance(url, str) and _HTTPS_URL.fullmatch(url) else None
