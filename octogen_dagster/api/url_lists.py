"""Coverage URL lists: models, limits and requests. No I/O.

An organization uploads named lists of product URLs. Once a day, Octogen joins each list with its
catalogs and shares the result in BigQuery. The service normalizes URLs. To find out whether two
URLs are the same, compare their normalized forms. All requests are free.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote, urlencode

from pydantic import Field

from octogen_dagster.api.flow import Flow, request_flow
from octogen_dagster.api.models import ResponseModel, UtcDatetime
from octogen_dagster.api.responses import URL_LISTS, lacks_version, parsed
from octogen_dagster.errors import (
    OctogenError,
    OctogenNotFoundError,
    OctogenPagingError,
    OctogenUrlListCapacityError,
    OctogenUrlListError,
)
from octogen_dagster.printable import count

if TYPE_CHECKING:
    from octogen_dagster.api.service import Service

MAX_URLS_PER_REQUEST = 1_000
"""Maximum number of URLs in a request that adds, removes or checks URLs."""

MAX_LIST_URLS = 100_000
"""Maximum number of URLs in a list."""

MAX_URL_CHARACTERS = 2_048
"""Maximum length of a URL. The service rejects the whole request if any URL is longer."""

MAX_NAME_CHARACTERS = 80
"""Maximum length of a list's name."""

MAX_PAGE_SIZE = 100
"""Maximum number of lists or URLs on a page."""

_Answer = TypeVar("_Answer", bound=ResponseModel)
_Page = TypeVar("_Page", "CoverageUrlListPage", "CoverageUrlListUrlsPage")


class CoverageUrlListBigQuery(ResponseModel):
    """The BigQuery listing and dataset for a URL list. The service omits the project and location.

    `last_exported_at` and `last_row_count` are None until the first daily export.
    """

    exchange_id: str
    listing_id: str
    shared_dataset_id: str
    view_id: str
    last_exported_at: UtcDatetime | None = None
    last_row_count: int | None = None
    reader_count: int


class CoverageUrlList(ResponseModel):
    """A coverage URL list.

    A new list has the status `provisioning` for about a minute. During this time, `big_query` is
    None. The status is then `active`. After a deletion, the status is `delete_pending` until the
    list is gone. The service might add other statuses.
    """

    url_list_id: str = Field(min_length=1)
    name: str
    status: str
    url_count: int
    big_query: CoverageUrlListBigQuery | None = None
    created_at: UtcDatetime | None = None
    updated_at: UtcDatetime | None = None


class CoverageUrlListPage(ResponseModel):
    """One page of the organization's lists, newest first."""

    items: list[CoverageUrlList]
    next_cursor: str | None = None


class CoverageAcceptedUrl(ResponseModel):
    """A URL in two forms: as sent, and as normalized by the service."""

    url: str
    normalized_url: str


class CoverageRejectedUrl(ResponseModel):
    """A rejected URL with a code such as `invalid_url`."""

    url: str
    code: str
    message: str


class CoverageUrlMutationResponse(ResponseModel):
    """The accepted and rejected URLs of a request to add or remove URLs."""

    accepted: list[CoverageAcceptedUrl]
    rejected: list[CoverageRejectedUrl]
    url_count: int
    request_id: str | None = None


class CoverageContainsResult(ResponseModel):
    """Whether a URL is in the list. `added_at` is None for a URL outside the list."""

    url: str
    normalized_url: str
    present: bool
    added_at: UtcDatetime | None = None


class CoverageContainsResponse(ResponseModel):
    """The result for each URL that was checked, in the order of the request."""

    results: list[CoverageContainsResult]


class CoverageUrlListUrl(ResponseModel):
    """A URL in a list, as it was added and as the service normalized it."""

    url: str
    normalized_url: str
    added_at: UtcDatetime | None = None


class CoverageUrlListUrlsPage(ResponseModel):
    """One page of a list's URLs, in the order they were added."""

    items: list[CoverageUrlListUrl]
    next_cursor: str | None = None


def checked_name(name: str, argument: str = "name") -> str:
    """Return a valid list name without surrounding whitespace, or raise ValueError."""
    name = name.strip()
    if not 1 <= len(name) <= MAX_NAME_CHARACTERS:
        raise ValueError(
            f"{argument} must have 1 to {MAX_NAME_CHARACTERS} characters, not counting surrounding "
            f"whitespace; got {len(name)} characters."
        )
    return name


def read_pages(read: Callable[[str | None], _Page], subject: str) -> Iterator[_Page]:
    """Read all pages. `read` takes a page's cursor, or None for page 1."""
    cursors: set[str | None] = {None}
    cursor: str | None = None
    while True:
        page = read(cursor)
        yield page
        cursor = page.next_cursor or None
        if cursor is None:
            return
        if cursor in cursors:
            raise OctogenPagingError(
                f"{subject}: page {len(cursors)} has the same next cursor as an earlier page, so "
                "the pages loop. Try again, and report the problem to Octogen if it persists."
            )
        cursors.add(cursor)


def create_url_list_flow(service: Service, name: str) -> Flow[CoverageUrlList]:
    """Create a list."""
    name = checked_name(name)
    subject = f"Creating URL list {name!r}"
    return (yield from _request(service, CoverageUrlList, "POST", "", subject, body={"name": name}))


def url_lists_flow(
    service: Service, *, cursor: str | None = None, limit: int | None = None
) -> Flow[CoverageUrlListPage]:
    """Read one page of URL lists."""
    query = _page_query(cursor, limit)
    subject = "The list of URL lists"
    return (yield from _request(service, CoverageUrlListPage, "GET", query, subject))


def url_list_flow(service: Service, url_list_id: str) -> Flow[CoverageUrlList]:
    """Get one list."""
    path, subject = _path(url_list_id), f"URL list {url_list_id!r}"
    return (yield from _request(service, CoverageUrlList, "GET", path, subject))


def delete_url_list_flow(service: Service, url_list_id: str) -> Flow[CoverageUrlList]:
    """Delete a list."""
    path, subject = _path(url_list_id), f"Deleting URL list {url_list_id!r}"
    return (yield from _request(service, CoverageUrlList, "DELETE", path, subject))


def add_urls_flow(
    service: Service, url_list_id: str, urls: Sequence[str]
) -> Flow[CoverageUrlMutationResponse]:
    """Add URLs to a list.

    If the URLs do not fit, the list is requested, so that the error can report how many would fit.
    """
    path, body = f"{_path(url_list_id)}/urls", _urls_body(urls)
    subject = f"Adding to URL list {url_list_id!r}"
    try:
        return (
            yield from _request(
                service, CoverageUrlMutationResponse, "POST", path, subject, body=body, paced=True
            )
        )
    except OctogenUrlListCapacityError as error:
        refused = error
    try:
        url_list = yield from url_list_flow(service, url_list_id)
    except OctogenError:
        raise refused from None
    left = max(0, MAX_LIST_URLS - url_list.url_count)
    explained = refused.with_message(
        f"URL list {url_list.name!r} ({url_list.url_list_id}) has "
        f"{count(url_list.url_count, 'URL')} and room for {left:,} more. None of the "
        f"{len(urls):,} URLs in the request were added (409 {refused.code}). Add fewer URLs, "
        "remove some URLs first, or use another list."
    )
    explained.urls_left = left
    raise explained


def remove_urls_flow(
    service: Service, url_list_id: str, urls: Sequence[str]
) -> Flow[CoverageUrlMutationResponse]:
    """Remove URLs from a list."""
    path, body = f"{_path(url_list_id)}/urls/remove", _urls_body(urls)
    subject = f"Removing from URL list {url_list_id!r}"
    return (
        yield from _request(
            service, CoverageUrlMutationResponse, "POST", path, subject, body=body, paced=True
        )
    )


def check_urls_flow(
    service: Service, url_list_id: str, urls: Sequence[str]
) -> Flow[CoverageContainsResponse]:
    """Check which of the URLs are in a list."""
    path, body = f"{_path(url_list_id)}/urls/contains", _urls_body(urls)
    subject = f"Checking URL list {url_list_id!r}"
    return (
        yield from _request(
            service, CoverageContainsResponse, "POST", path, subject, body=body, paced=True
        )
    )


def list_urls_flow(
    service: Service, url_list_id: str, *, cursor: str | None = None, limit: int | None = None
) -> Flow[CoverageUrlListUrlsPage]:
    """Read one page of a list's URLs."""
    path = f"{_path(url_list_id)}/urls{_page_query(cursor, limit)}"
    subject = f"The URLs of URL list {url_list_id!r}"
    return (yield from _request(service, CoverageUrlListUrlsPage, "GET", path, subject, paced=True))


def _request(
    service: Service,
    model: type[_Answer],
    method: str,
    path: str,
    subject: str,
    *,
    body: Mapping[str, Any] | None = None,
    paced: bool = False,
) -> Flow[_Answer]:
    """Send a request and parse its response."""
    try:
        response = yield from request_flow(
            service, method, f"{URL_LISTS}{path}", subject, body, paced=paced
        )
    except OctogenNotFoundError as error:
        if isinstance(error, OctogenUrlListError) or lacks_version(service.base_url):
            raise
        raise error.with_message(
            f"{subject} failed: coverage URL lists are not available at {service.base_url} or for "
            "this API key (404). URL lists require the current API contract. Ask Octogen to "
            "enable URL lists for your organization."
        ) from None
    return parsed(model, response, subject)


def _path(url_list_id: str) -> str:
    list_id = url_list_id.strip()
    if list_id in {"", ".", ".."}:  # HTTP clients drop these from the path
        raise ValueError(f"url_list_id must be a list's id, such as cul_…; got {list_id!r}.")
    return f"/{quote(list_id, safe='')}"


def _page_query(cursor: str | None, limit: int | None) -> str:
    if limit is not None and not 1 <= limit <= MAX_PAGE_SIZE:
        raise ValueError(f"`limit` must be between 1 and {MAX_PAGE_SIZE}; got {limit}.")
    query = {"cursor": cursor, "limit": limit}
    given = {name: value for name, value in query.items() if value is not None}
    return f"?{urlencode(given)}" if given else ""


def _urls_body(urls: Sequence[str]) -> dict[str, Any]:
    """Return a request body with the URLs. Only the service checks whether a URL is valid."""
    if isinstance(urls, str):
        raise ValueError("`urls` must be a list, not a string. Put the URL in a list.")
    if not 1 <= len(urls) <= MAX_URLS_PER_REQUEST:
        raise ValueError(
            f"`urls` must contain 1 to {MAX_URLS_PER_REQUEST:,} URLs; got {len(urls):,}. Split a "
            "longer list into several requests."
        )
    for place, url in enumerate(urls):
        if len(url) > MAX_URL_CHARACTERS:
            raise ValueError(
                f"The URL at urls[{place}] has {len(url):,} characters, but the service allows at "
                f"most {MAX_URL_CHARACTERS:,}. Remove this URL, which begins with {url[:80]!r}."
            )
    return {"urls": list(urls)}
