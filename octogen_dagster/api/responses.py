"""Turns an HTTP response into a value or an error. No I/O: the response has been read."""

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
"""The detail of a 404 about a catalog that is not granted."""

URL_LISTS = "/coverage/url-lists"
"""The path of the operations on coverage URL lists."""

_CONCURRENCY_EXCEEDED = "concurrency_limit_exceeded"
_VERSION = re.compile(r"/v\d+(/|$)")
_MAX_TEXT, _MAX_FIELDS, _MAX_PATH = 200, 5, 10  # in a message

_ADVICE: Mapping[str, str] = {
    "product_not_found": "No catalog has a product at this address: check it, or treat the product "
    "as removed.",
    "invalid_product_url": "It is not the address of a product's page: pass the whole address, "
    "with https://.",
    "unsafe_url": "The service looks up only public addresses: pass that of the merchant's page.",
    "product_lookup_rate_limited": "The rate limit of lookups is used up: run fewer at once or try "
    "later.",
    _CONCURRENCY_EXCEEDED: "Too many requests were in flight: lower `concurrency`, or run fewer "
    "reads at once.",
}
_OF_URL_LISTS: Mapping[str, tuple[type[OctogenUrlListError], str]] = {
    "url_list_not_found": (
        OctogenUrlListNotFoundError,
        "The organisation of this key has no such list: take the id from the list of its lists.",
    ),
    "url_list_deleting": (
        OctogenUrlListError,
        "The list is being deleted, which cannot be undone: create a new one.",
    ),
    "url_list_migrating": (
        OctogenUrlListUnavailableError,
        "The service is normalizing the list's URLs anew: try again in a few minutes.",
    ),
    "url_list_name_conflict": (
        OctogenUrlListNameConflictError,
        "A live list has this name: use that one, or choose another name.",
    ),
    "url_list_limit_exceeded": (
        OctogenUrlListError,
        "The organisation has as many live lists as it may have: use one of them, or delete one.",
    ),
    "list_url_capacity_exceeded": (
        OctogenUrlListCapacityError,
        "The list would get more than 100,000 URLs, and none of the request was added: add fewer, "
        "remove some before, or put them into another list.",
    ),
    "invalid_cursor": (
        OctogenUrlListError,
        "The cursor is malformed or stale: begin again without one.",
    ),
    "url_lists_unavailable": (
        OctogenUrlListUnavailableError,
        "The service cannot read or change URL lists for now: try again later.",
    ),
}
_BY_STATUS: Mapping[int, tuple[type[OctogenAPIError], str]] = {
    401: (
        OctogenAuthenticationError,
        "Check that STOREROUTER_API_KEY, OCTOGEN_PLATFORM_API_KEY or OCTO_API_KEY holds a current "
        "key; replace a revoked one at platform.octogen.ai.",
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
        "The organisation's rate limit is used up: run fewer reads at once or try later.",
    ),
}


def advice_of(status: int) -> str:
    """Return what to do about a refusal with a status."""
    return _BY_STATUS[status][1]


def parsed(model: type[_Value], response: Response, subject: str) -> _Value:
    """Parse the body of a response as a pydantic model, or as a list of one."""
    try:
        value: _Value = _adapter(cast("Hashable", model)).validate_json(response.content)
        return value
    except ValidationError as error:
        raise invalid_body(response, subject, _first_problem(response.content, error)) from None


@functools.cache
def _adapter(model: Any) -> TypeAdapter[Any]:
    return TypeAdapter(model)


def error_from_response(response: Response, subject: str) -> OctogenAPIError:
    """Make the error for a response whose status is not 2xx; the subject begins its message."""
    detail = _detail(response)
    of_lists = response.request is not None and URL_LISTS in response.request.url
    own = _OF_URL_LISTS.get(error_code(detail)) if of_lists else None
    kind, advice = own or _kind_and_advice(response, detail)
    request_id = _request_id(response)
    if response.status_code == 404 and detail == CATALOG_NOT_FOUND:
        text = (
            f"{subject} is not granted to this key (404 catalog_not_found{request_id}). Ask "
            "Octogen for access or correct the catalog key."
        )
    elif response.status_code == 404 and detail == "domain_not_covered":
        text = (
            f"{subject} is not covered by Octogen (404 domain_not_covered{request_id}). Correct "
            "the host or ask Octogen to cover the shop. Amazon, Walmart, Target, eBay and Etsy are "
            "never covered."
        )
    else:
        reason = f"{response.status_code} {_reason(detail, response)}{request_id}"
        text = f"{subject} failed: {reason}. {advice}"
    return kind(text, response.as_httpx(), detail, retry_after_seconds(response.headers))


def invalid_body(response: Response, subject: str, problem: str) -> OctogenResponseError:
    """Make the error for a success status whose body has a problem, which is a noun phrase."""
    content_type = _shown(response.headers.get("content-type") or "no content type")
    return OctogenResponseError(
        f"{subject} was answered with {response.status_code} and {problem} "
        f"({content_type}{_request_id(response)}). Check base_url, or report it to Octogen.",
        response.as_httpx(),
        _detail(response),
        retry_after_seconds(response.headers),
    )


def lacks_version(url: str) -> bool:
    """True if an address of the service does not have the version of the API, as `/v1`."""
    return not _VERSION.search(urlsplit(url).path)


def is_concurrency_refusal(error: OctogenError) -> bool:
    """True if a request was refused because too many were in flight."""
    return (
        isinstance(error, OctogenRateLimitError)
        and error_code(error.detail) == _CONCURRENCY_EXCEEDED
    )


def refused_fields(detail: Any) -> set[str]:
    """The names of the request fields that the `detail` of a 422 refuses."""
    entries = detail if isinstance(detail, list) else []
    paths = [_field_path(entry) for entry in entries if isinstance(entry, dict)]
    return {path[-1] for path in paths if path and isinstance(path[-1], str)}


def _field_path(entry: Mapping[str, Any]) -> list[Any]:
    loc = entry.get("loc") or []
    return loc if isinstance(loc, list) else [loc]


def _first_problem(content: bytes, error: ValidationError) -> str:
    """Describe the first problem of a body; name an entry by its uuid, and the field."""
    first = error.errors(include_url=False)[0]
    message, loc = first["msg"], first["loc"]
    if first["type"] == "json_invalid":
        return f"a body that is not JSON, {message.removeprefix('Invalid JSON: ')}"
    reason = f"{message[0].lower()}{message[1:]}, not {reprlib.repr(first['input'])}"
    if len(loc) < 2 or loc[0] != "items":
        return f"a wrong {_dotted(loc) or 'document'}: {reason}"
    item = from_json(content)["items"][loc[1]]
    uuid = item.get("uuid") if isinstance(item, dict) else None
    place = f"item {loc[1]}"
    name = f"a product {repr(uuid)[:_MAX_TEXT]} ({place})" if uuid else f"an entry at {place}"
    field = _dotted(loc[2:])
    return f"{name} {f'whose {field} is wrong' if field else 'that is wrong'}: {reason}"


def _kind_and_advice(response: Response, detail: Any) -> tuple[type[OctogenAPIError], str]:
    status, code = response.status_code, error_code(detail)
    if 300 <= status < 400:
        return OctogenAPIError, _redirect_advice(response)
    if status in {502, 503, 504} and code.startswith("product_lookup_"):
        return OctogenShopError, "The product's shop failed, not the service: try again later."
    if status >= 500:
        return OctogenServerError, "The service failed: try again later."
    kind, advice = _BY_STATUS.get(status, (OctogenAPIError, "See the detail above."))
    if status == 404 and response.request and lacks_version(response.request.url):
        return kind, f"Check base_url: it ends with /v1, such as {DEFAULT_BASE_URL}."
    if kind is OctogenInsufficientCreditError and (url := top_up_url(detail)):
        return kind, f"The prepaid credit is spent: top it up at {url} and run again."
    return kind, _ADVICE.get(code, advice)


def _redirect_advice(response: Response) -> str:
    if response.status_code == 304:
        return (
            "It says that nothing has changed, which was not asked: check the proxy or cache "
            "between this machine and base_url."
        )
    location = response.headers.get("location")
    if not location:
        return "It names no other address: check base_url."
    try:
        host = urlsplit(location).hostname
    except ValueError:
        host = None
    return (
        f"It redirects to {_shown(host or 'another address')}, and redirects are not followed so "
        "that the key stays with the configured host: correct base_url."
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
    """Describe why the service refused, from the detail or else from the body as text."""
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
    """Show what the service chose: short, on one line, without control characters."""
    text = value if isinstance(value, str) else reprlib.repr(value)
    line = " ".join(text[:_MAX_TEXT].split())
    return line if line.isprintable() else repr(line)
