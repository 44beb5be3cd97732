"""Coverage URL lists: their models, limits and operations. No I/O.

An organization keeps named sets of product addresses at Octogen. Once a day Octogen joins each with
its catalogs and shares the result over BigQuery. The service normalizes the addresses, and only its
normalized form says if two are the same. None of the operations is charged.
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
"""The most URLs of a request that adds, removes or checks them."""

MAX_LIST_URLS = 100_000
"""The most URLs of a list."""

MAX_URL_CHARACTERS = 2_048
"""The most characters of a URL. One that is longer makes the service refuse a whole request."""

MAX_NAME_CHARACTERS = 80
"""The most characters of a list's name."""

MAX_PAGE_SIZE = 100
"""The most lists or URLs of a page."""

_Answer = TypeVar("_Answer", bound=ResponseModel)
_Page = TypeVar("_Page", "CoverageUrlListPage", "CoverageUrlListUrlsPage")


class CoverageUrlListBigQuery(ResponseModel):
    """The listing and the dataset that share a list. It names no project and no location.

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

    `status` is `provisioning` for about a minute, with a `big_query` of None, then `active`. It is
    `delete_pending` from the deletion until the list is gone. The service may add others.
    """

    url_list_id: str = Field(min_length=1)
    name: str
    status: str
    url_count: int
    big_query: CoverageUrlListBigQuery | None = None
    created_at: UtcDatetime | None = None
    updated_at: UtcDatetime | None = None


class CoverageUrlListPage(ResponseModel):
    """A page of the organization's lists, newest first."""

    items: list[CoverageUrlList]
    next_cursor: str | None = None


class CoverageAcceptedUrl(ResponseModel):
    """A URL as it was sent, and as the service normalizes it."""

    url: str
    normalized_url: str


class CoverageRejectedUrl(ResponseModel):
    """A URL that the service rejected, with a code such as `invalid_url`."""

    url: str
    code: str
    message: str


class CoverageUrlMutationResponse(ResponseModel):
    """The outcome of each URL that was to be added or removed."""

    accepted: list[CoverageAcceptedUrl]
    rejected: list[CoverageRejectedUrl]
    url_count: int
    request_id: str | None = None


class CoverageContainsResult(ResponseModel):
    """A URL that is in the list or is not; `added_at` is None if it is not."""

    url: str
    normalized_url: str
    present: bool
    added_at: UtcDatetime | None = None


class CoverageContainsResponse(ResponseModel):
    """Which URLs are in the list, in the order of the request."""

    results: list[CoverageContainsResult]


class CoverageUrlListUrl(ResponseModel):
    """A URL of a list, as it was sent when it was added, and normalized."""

    url: str
    normalized_url: str
    added_at: UtcDatetime | None = None


class CoverageUrlListUrlsPage(ResponseModel):
    """A page of the URLs of a list, in the order in which they were added."""

    items: list[CoverageUrlListUrl]
    next_cursor: str | None = None


def checked_name(name: str, argument: str = "name") -> str:
    """Return the name of a list without blanks around it, or raise ValueError."""
    name = name.strip()
    if not 1 <= len(name) <= MAX_NAME_CHARACTERS:
        raise ValueError(
            f"{argument} must have 1 to {MAX_NAME_CHARACTERS} characters without blanks around it, "
            f"not {len(name)}"
        )
    return name


def read_pages(read: Callable[[str | None], _Page], subject: str) -> Iterator[_Page]:
    """Read all pages of a subject, each by the cursor of the page before; the first has none."""
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
                f"{subject}: page {len(cursors)} has the next cursor of an earlier page, so the "
                "pages loop. Run it again, and report it to Octogen if it stays."
            )
        cursors.add(cursor)


def create_url_list_flow(service: Service, name: str) -> Flow[CoverageUrlList]:
    """Create a list."""
    name = checked_name(name)
    subject = f"The creation of URL list {name!r}"
    return (yield from _request(service, CoverageUrlList, "POST", "", subject, body={"name": name}))


def url_lists_flow(
    service: Service, *, cursor: str | None = None, limit: int | None = None
) -> Flow[CoverageUrlListPage]:
    """Read one page of the lists."""
    query = _page_query(cursor, limit)
    subject = "The list of URL lists"
    return (yield from _request(service, CoverageUrlListPage, "GET", query, subject))


def url_list_flow(service: Service, url_list_id: str) -> Flow[CoverageUrlList]:
    """Get one list."""
    path, subject = _path(url_list_id), f"URL list {url_list_id!r}"
    return (yield from _request(service, CoverageUrlList, "GET", path, subject))


def delete_url_list_flow(service: Service, url_list_id: str) -> Flow[CoverageUrlList]:
    """Delete a list."""
    path, subject = _path(url_list_id), f"The deletion of URL list {url_list_id!r}"
    return (yield from _request(service, CoverageUrlList, "DELETE", path, subject))


def add_urls_flow(
    service: Service, url_list_id: str, urls: Sequence[str]
) -> Flow[CoverageUrlMutationResponse]:
    """Add URLs to a list; if they do not fit, get the list to say how many do."""
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
    message = (
        f"URL list {url_list.name!r} ({url_list.url_list_id}) has "
        f"{count(url_list.url_count, 'URL')}, which leaves room for {left:,}: none of the "
        f"request's {len(urls):,} was added (409 {refused.code}). Add fewer, remove some before, "
        "or put them into another list."
    )
    raise OctogenUrlListCapacityError(
        message, refused.response, refused.detail, refused.retry_after, left
    )


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
    """Check which URLs a list has."""
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
    """Read one page of the URLs of a list."""
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
    """Send a request, and parse its answer."""
    try:
        response = yield from request_flow(
            service, method, f"{URL_LISTS}{path}", subject, body, paced=paced
        )
    except OctogenNotFoundError as error:
        if isinstance(error, OctogenUrlListError) or lacks_version(service.base_url):
            raise
        raise error.with_message(
            f"{subject} failed: {service.base_url} has no coverage URL lists, or none for this key "
            "(404). Only a service of the current contract has them; ask Octogen to open them to "
            "your organization."
        ) from None
    return parsed(model, response, subject)


def _path(url_list_id: str) -> str:
    list_id = url_list_id.strip()
    if list_id in {"", ".", ".."}:  # a client would drop these from the path
        raise ValueError(f"url_list_id must be the id of a list, such as cul_…, not {list_id!r}")
    return f"/{quote(list_id, safe='')}"


def _page_query(cursor: str | None, limit: int | None) -> str:
    if limit is not None and not 1 <= limit <= MAX_PAGE_SIZE:
        raise ValueError(f"limit must be from 1 to {MAX_PAGE_SIZE}, not {limit}")
    query = {"cursor": cursor, "limit": limit}
    given = {name: value for name, value in query.items() if value is not None}
    return f"?{urlencode(given)}" if given else ""


def _urls_body(urls: Sequence[str]) -> dict[str, Any]:
    """Return the body of a request about URLs. If one is none, the service says so."""
    if isinstance(urls, str):
        raise ValueError("urls must be a list of URLs, not one text")
    if not 1 <= len(urls) <= MAX_URLS_PER_REQUEST:
        raise ValueError(
            f"urls must be 1 to {MAX_URLS_PER_REQUEST:,} URLs, not {len(urls):,}: send more in "
            "several requests"
        )
    for place, url in enumerate(urls):
        if len(url) > MAX_URL_CHARACTERS:
            raise ValueError(
                f"urls[{place}] has {len(url):,} characters, and the service takes at most "
                f"{MAX_URL_CHARACTERS:,}: leave it out. It begins with {url[:80]!r}"
            )
    return {"urls": list(urls)}
