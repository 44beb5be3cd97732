"""Parse HTTP responses into models or errors. No I/O: the response has already been read."""

from __future__ import annotations

import functools
import http.client
import re
import reprlib
from typing import TYPE_CHECKING, Any, TypeVar, cast
from urllib.parse import urlsplit

from pydantic import TypeAdapter, ValidationError
from pydantic_core import from_json

from octogen_dagster.api.credentials import DEFAULT_BASE_URL
from octogen_dagster.api.http import retry_after_seconds
from octogen_dagster.errors import (
    OctogenAPIError,
    OctogenAuthenticationError,
    OctogenError,
    OctogenForbiddenError,
    OctogenInsufficientCreditError,
    OctogenNotFoundError,
    OctogenRateLimitError,
    OctogenResponseError,
    OctogenServerError,
    OctogenShopError,
    OctogenUrlListCapacityError,
    OctogenUrlListError,
    OctogenUrlListNameConflictError,
    OctogenUrlListNotFoundError,
    OctogenUrlListUnavailableError,
    OctogenValidationError,
    error_code,
    top_up_url,
)

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping, Sequence

    from octogen_dagster.api.http import Response

_Value = TypeVar("_Value")

CATALOG_NOT_FOUND = "catalog_not_found"
"""The 404 detail for a catalog that is not granted to the API key."""

URL_LISTS = "/coverage/url-lists"
"""The path for coverage URL lists."""

_CONCURRENCY_EXCEEDED = "concurrency_limit_exceeded"
_VERSION = re.compile(r"/v\d+(/|$)")
_MAX_TEXT, _MAX_FIELDS, _MAX_PATH = 200, 5, 10  # in a message

_ADVICE: Mapping[str, str] = {
    "product_not_found": "No catalog has a product at this URL. Check the URL, or treat the "
    "product as removed.",
    "invalid_product_url": "This is not a product URL. Pass the full URL, including https://.",
    "unsafe_url": "The service looks up public URLs only. Pass the product page's public URL.",
    "product_lookup_rate_limited": "The lookup rate limit is used up. Run fewer lookups in "
    "parallel or try again later.",
    _CONCURRENCY_EXCEEDED: "Too many requests were in flight. Lower `concurrency`, or run fewer "
    "reads in parallel.",
}
_URL_LIST_ERRORS: Mapping[str, tuple[type[OctogenUrlListError], str]] = {
    "url_list_not_found": (
        OctogenUrlListNotFoundError,
        "The API key's organization has no list with this id. List the URL lists to find the id.",
    ),
    "url_list_deleting": (
        OctogenUrlListError,
        "The list is being deleted. The deletion cannot be undone. Create a new list.",
    ),
    "url_list_migrating": (
        OctogenUrlListUnavailableError,
        "The service is re-normalizing the list's URLs. Try again in a few minutes.",
    ),
    "url_list_name_conflict": (
        OctogenUrlListNameConflictError,
        "A list with this name already exists. Use that list, or choose another name.",
    ),
    "url_list_limit_exceeded": (
        OctogenUrlListError,
        "The organization has reached its limit of URL lists. Use an existing list, or delete one.",
    ),
    "list_url_capacity_exceeded": (
        OctogenUrlListCapacityError,
        "The list would exceed 100,000 URLs, so no URL was added. Add fewer URLs, remove some URLs "
        "first, or use another list.",
    ),
    "invalid_cursor": (
        OctogenUrlListError,
        "The cursor is malformed or expired. Start again without a cursor.",
    ),
    "url_lists_unavailable": (
        OctogenUrlListUnavailableError,
        "URL lists are temporarily unavailable. Try again later.",
    ),
}
_BY_STATUS: Mapping[int, tuple[type[OctogenAPIError], str]] = {
    401: (
        OctogenAuthenticationError,
        "Check that STOREROUTER_API_KEY, OCTOGEN_PLATFORM_API_KEY or OCTO_API_KEY contains a valid "
        "key. Replace a revoked key at platform.octogen.ai.",
    ),
    402: (OctogenInsufficientCreditError, "The account is out of credit. Top it up and rerun."),
    403: (
        OctogenForbiddenError,
        "The key is valid but lacks permission. Ask Octogen for access.",
    ),
    404: (OctogenNotFoundError, "Check the name, or ask Octogen for access."),
    422: (OctogenValidationError, "Correct the field named above."),
    429: (
        OctogenRateLimitError,
        "The organization's rate limit is used up. Run fewer reads in parallel or try again later.",
    ),
}


def advice_of(status: int) -> str:
    """Return the advice for an HTTP error status."""
    return _BY_STATUS[status][1]


def parsed(model: type[_Value], response: Response, subject: str) -> _Value:
    """Parse a response body as a pydantic model or a list of models."""
    try:
        value: _Value = _adapter(cast("Hashable", model)).validate_json(response.content)
        return value
    except ValidationError as error:
        raise invalid_body(response, subject, _first_problem(response.content, error)) from None


@functools.cache
def _adapter(model: Any) -> TypeAdapter[Any]:
    return TypeAdapter(model)


def error_from_response(response: Response, subject: str) -> OctogenAPIError:
    """Create the error for a response with a non-2xx status. The message begins with `subject`."""
    detail = _detail(response)
    is_url_list = response.request is not None and URL_LISTS in response.request.url
    url_list_error = _URL_LIST_ERRORS.get(error_code(detail)) if is_url_list else None
    kind, advice = url_list_error or _kind_and_advice(response, detail)
    request_id = _request_id(response)
    if response.status_code == 404 and detail == CATALOG_NOT_FOUND:
        text = (
            f"{subject} is not granted to the API key (404 catalog_not_found{request_id}). Ask "
            "Octogen for access, or correct the catalog key."
        )
    elif response.status_code == 404 and detail == "domain_not_covered":
        text = (
            f"{subject} is not covered by Octogen (404 domain_not_covered{request_id}). Correct "
            "the host, or ask Octogen to cover the shop. Amazon, Walmart, Target, eBay and Etsy "
            "are never covered."
        )
    else:
        reason = f"{response.status_code} {_reason(detail, response)}{request_id}"
        text = f"{subject} failed: {reason}. {advice}"
    return kind(text, response.as_httpx(), detail, retry_after_seconds(response.headers))


def invalid_body(response: Response, subject: str, problem: str) -> OctogenResponseError:
    """Create the error for a response with an invalid body. The message includes `problem`."""
    content_type = _shown(response.headers.get("content-type") or "no content type")
    return OctogenResponseError(
        f"{subject} failed: the service responded with {response.status_code} and {problem} "
        f"({content_type}{_request_id(response)}). Check base_url, or report this to Octogen.",
        response.as_httpx(),
        _detail(response),
        retry_after_seconds(response.headers),
    )


def lacks_version(url: str) -> bool:
    """True if a URL has no API version such as `/v1`."""
    return not _VERSION.search(urlsplit(url).path)


def is_concurrency_rejection(error: OctogenError) -> bool:
    """True if the service rejected a request because too many were in flight."""
    return (
        isinstance(error, OctogenRateLimitError)
        and error_code(error.detail) == _CONCURRENCY_EXCEEDED
    )


def refused_fields(detail: Any) -> set[str]:
    """Return the names of the rejected request fields from the `detail` of a 422."""
    entries = detail if isinstance(detail, list) else []
    paths = [_field_path(entry) for entry in entries if isinstance(entry, dict)]
    return {path[-1] for path in paths if path and isinstance(path[-1], str)}


def _field_path(entry: Mapping[str, Any]) -> list[Any]:
    loc = entry.get("loc") or []
    return loc if isinstance(loc, list) else [loc]


def _first_problem(content: bytes, error: ValidationError) -> str:
    """Describe the first invalid value in a body, with its field and the product's uuid."""
    first = error.errors(include_url=False)[0]
    message, loc = first["msg"], first["loc"]
    if first["type"] == "json_invalid":
        return f"a body that is not valid JSON, {message.removeprefix('Invalid JSON: ')}"
    reason = f"{message[0].lower()}{message[1:]}, not {reprlib.repr(first['input'])}"
    if len(loc) < 2 or loc[0] != "items":
        return f"an invalid {f'field {_dotted(loc)}' if loc else 'document'}: {reason}"
    item = from_json(content)["items"][loc[1]]
    uuid = item.get("uuid") if isinstance(item, dict) else None
    place = f"item {loc[1]}"
    name = f"product {repr(uuid)[:_MAX_TEXT]} ({place})" if uuid else place
    field = _dotted(loc[2:])
    return f"an invalid {f'field {field} in ' if field else ''}{name}: {reason}"


def _kind_and_advice(response: Response, detail: Any) -> tuple[type[OctogenAPIError], str]:
    status, code = response.status_code, error_code(detail)
    if 300 <= status < 400:
        return OctogenAPIError, _redirect_advice(response)
    if status in {502, 503, 504} and code.startswith("product_lookup_"):
        return OctogenShopError, "The product's shop caused this error. Try again later."
    if status >= 500:
        return OctogenServerError, "The service failed. Try again later."
    kind, advice = _BY_STATUS.get(status, (OctogenAPIError, "See the detail above."))
    if status == 404 and response.request and lacks_version(response.request.url):
        return kind, f"Check that base_url ends with /v1, such as {DEFAULT_BASE_URL}."
    if kind is OctogenInsufficientCreditError and (url := top_up_url(detail)):
        return kind, f"The account is out of credit. Top it up at {url} and rerun."
    return kind, _ADVICE.get(code, advice)


def _redirect_advice(response: Response) -> str:
    if response.status_code == 304:
        return (
            "The request had no If-None-Match or If-Modified-Since header, so this response came "
            "from a cache. Check the proxy or cache between this machine and base_url."
        )
    location = response.headers.get("location")
    if not location:
        return "The redirect has no target. Check base_url."
    try:
        host = urlsplit(location).hostname
    except ValueError:
        host = None
    return (
        f"The service redirects to {_shown(host or 'another URL')}. Redirects are not followed, "
        "because they could send the API key to another host. Correct base_url."
    )


def _detail(response: Response) -> Any:
    try:
        body = from_json(response.content)
    except ValueError:
        return None
    return body.get("detail") if isinstance(body, dict) else None


def _request_id(response: Response) -> str:
    request_id = response.headers.get("x-request-id")
    return f", request {_shown(request_id)}" if request_id else ""


def _reason(detail: Any, response: Response) -> str:
    """Return the reason for an error: `detail` if it exists, otherwise the body's text."""
    if isinstance(detail, list) and detail:
        return "; ".join(_field_error(entry) for entry in detail[:_MAX_FIELDS])
    if isinstance(detail, dict):
        detail = detail.get("code") or detail.get("message") or detail
    if not detail:
        detail = response.content[:_MAX_TEXT].decode(errors="replace")
    name = http.client.responses.get(response.status_code, "without a reason")
    return (_shown(detail) or name).rstrip(".")


def _field_error(entry: Any) -> str:
    if not isinstance(entry, dict):
        return _shown(entry)
    field = _dotted([part for part in _field_path(entry) if part != "body"]) or "request"
    return f"{field}: {_shown(entry.get('msg', 'invalid'))}"


def _dotted(path: Sequence[Any]) -> str:
    return _shown(".".join(map(_shown, path[:_MAX_PATH])))


def _shown(value: Any) -> str:
    """Shorten text from the service to one line without control characters."""
    text = value if isinstance(value, str) else reprlib.repr(value)
    line = " ".join(text[:_MAX_TEXT].split())
    return line if line.isprintable() else repr(line)
