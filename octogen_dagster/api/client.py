"""OctogenClient: the operations of the service, asynchronous, on httpx or httpx2."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Self

from typing_extensions import Unpack

from octogen_dagster.api import http
from octogen_dagster.api.catalog_states import parsed_catalog_list
from octogen_dagster.api.credentials import (
    DEFAULT_BASE_URL,
    ApiKey,
    configured_base_url,
    may_use_proxy,
)
from octogen_dagster.api.flow import (
    CATALOGS,
    Flow,
    RequestStatistics,
    Send,
    T,
    catalogs_flow,
    count_flow,
    domain_flow,
    list_catalogs_flow,
    me_flow,
    page_flow,
    parsed_page,
    product_flow,
    search_flow,
    search_subject,
)
from octogen_dagster.api.http import (
    BodyTooLargeError,
    Response,
    TransportError,
    TransportTimeoutError,
    is_cut_off,
    parsed_headers,
)
from octogen_dagster.api.pacing import RateLimiter
from octogen_dagster.api.paging import PageTracker
from octogen_dagster.api.retry import RetryPolicy
from octogen_dagster.api.search import (
    MAX_PAGE_SIZE,
    SearchArguments,
    SearchRequest,
    shows_arguments,
)
from octogen_dagster.api.service import DEFAULT_TIMEOUT, HEADERS, Generation, Service
from octogen_dagster.api.spending import Spending
from octogen_dagster.api.url_lists import (
    add_urls_flow,
    check_urls_flow,
    create_url_list_flow,
    delete_url_list_flow,
    list_urls_flow,
    remove_urls_flow,
    url_list_flow,
    url_lists_flow,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    import httpx
    import httpx2

    from octogen_dagster.api.catalog_states import CatalogList
    from octogen_dagster.api.models import (
        DomainCoverageResponse,
        MerchantCatalogSummary,
        MerchantProductListItem,
        MerchantProductListPage,
        MerchantProductUrlLookupResponse,
        MeResponse,
    )
    from octogen_dagster.api.search import SearchFilters
    from octogen_dagster.api.spending import Charge
    from octogen_dagster.api.url_lists import (
        CoverageContainsResponse,
        CoverageUrlList,
        CoverageUrlListPage,
        CoverageUrlListUrlsPage,
        CoverageUrlMutationResponse,
    )

_MAX_AT_ONCE = 16
_PHASES = ("connect", "read", "write", "pool")


class OctogenClient:
    """Octogen's REST API, asynchronous.

    Use it as `async with OctogenClient() as client`, or call `aclose()`.

    Args:
        api_key: The API key; by default `STOREROUTER_API_KEY`, then
            `OCTOGEN_PLATFORM_API_KEY`, then `OCTO_API_KEY`.
        base_url: The base URL of the API: https, or http on this machine. By default
            `OCTOGEN_BASE_URL`, then that at `OCTOGEN_HOST`, or else Octogen's own.
        timeout: Seconds for one attempt of a request, to the last byte of the response; a `Timeout`
            of httpx or httpx2, as that of `http_client`, limits each phase of it instead.
        http_client: A client of httpx or httpx2 to send requests with, by default one of httpx. It
            stays open when this one is closed, and `response` of an error is of its library.
        retry: How requests are retried; its deadline holds for all attempts together.
        rate_limiter: Limits how fast pages are read; clients that run at once may share one.
        spending: Counts and limits what the requests cost; clients may share one.
        _service: The service with all its settings, in place of the others.

    Raises:
        MissingAPIKeyError: There is no API key.
        ValueError: base_url, the host or the API key is malformed.
    """

    def __init__(
        self,
        *,
        api_key: str | ApiKey | None = None,
        base_url: str = DEFAULT_BASE_URL,
        timeout: float | httpx.Timeout | httpx2.Timeout = DEFAULT_TIMEOUT,
        http_client: httpx.AsyncClient | httpx2.AsyncClient | None = None,
        retry: RetryPolicy | None = None,
        rate_limiter: RateLimiter | None = None,
        spending: Spending | None = None,
        _service: Service | None = None,
    ) -> None:
        import httpx

        if http_client is not None and timeout == DEFAULT_TIMEOUT:
            timeout = http_client.timeout
        self._phases: dict[str, Any] = {
            phase: getattr(timeout, phase, timeout) for phase in _PHASES
        }
        if _service is None:
            try:
                key = api_key if isinstance(api_key, ApiKey) else ApiKey(api_key)
            finally:
                del api_key  # no traceback that shows locals is to show it
            _service = Service(
                api_key=key,
                # An equal text that was passed is another object.
                base_url=configured_base_url() if base_url is DEFAULT_BASE_URL else base_url,
                timeout=timeout if isinstance(timeout, int | float) else float("inf"),
                phase_timeout=self._phases["read"] or float("inf"),
                retry=retry or RetryPolicy(),
                limiter=rate_limiter or RateLimiter(),
                spending=spending or Spending(),
            )
        self._service = _service
        self._owns_client = http_client is None
        self._http: Any = http_client or httpx.AsyncClient(
            trust_env=may_use_proxy(_service.base_url)
        )
        httpx2 = sys.modules.get("httpx2")  # whoever has a client of it has imported it
        self._httpx: Any = (
            httpx2 if httpx2 and isinstance(self._http, httpx2.AsyncClient) else httpx
        )
        self._statistics = RequestStatistics()

    def __repr__(self) -> str:
        service = getattr(self, "_service", None)  # a traceback shows one that was refused
        return f"OctogenClient(base_url={service and service.base_url!r})"

    def __reduce__(self) -> str:
        raise TypeError("An OctogenClient holds connections and cannot be pickled.")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections, unless they belong to a client that was passed in."""
        if self._owns_client:
            await self._http.aclose()

    async def list_catalogs(self) -> list[MerchantCatalogSummary]:
        """List the catalogs that are granted to the API key; the list may be empty.

        Raises:
            OctogenNotFoundError: The service has no list of catalogs, as today's.
            OctogenError: The request failed otherwise.
        """
        return await self._run(list_catalogs_flow(self._service))

    async def list_catalog_states(self) -> CatalogList:
        """List the catalogs that are granted to the API key, as `GrantedCatalogs` does.

        It is the same request as `list_catalogs`, decoded faster.

        Raises:
            OctogenNotFoundError: The service has no list of catalogs, as today's.
            OctogenError: The request failed otherwise.
        """
        return parsed_catalog_list(await self._run(catalogs_flow(self._service)), CATALOGS)

    async def get_me(self) -> MeResponse:
        """Get the organization of the API key and its rate limit.

        Raises:
            OctogenError: The request failed; an older service answers 404.
        """
        return await self._run(me_flow(self._service))

    async def get_domain(self, host: str, *, paced: bool = False) -> DomainCoverageResponse:
        """Get the catalogs that serve a shop's host, with counts, facets and prices.

        Args:
            host: The host, such as "shop.example".
            paced: True for one of many hosts, which obey the rate limiter.

        Raises:
            ValueError: The host is empty.
            OctogenNotFoundError: No catalog serves the host, or an older service has no such
                operation.
            OctogenError: The request failed otherwise.
        """
        return await self._run(domain_flow(self._service, host, paced=paced))

    async def count_products(self, filters: SearchFilters, catalogs: Sequence[str] = ()) -> int:
        """Count the products that the filters of a search leave: a lower bound, which is free.

        The service counts products by top-level category. Products without a category are not
        counted, nor are those beyond its 1,000 largest categories. Keywords narrow no count, only
        the filters that an understood `q` is turned into.

        Args:
            filters: The search, such as a `ProductSearch`.
            catalogs: The keys of its catalogs, at most 500; by default those that a `ProductSearch`
                names itself, and without any all catalogs.

        Raises:
            ValueError: There are too many catalogs, one has an empty key, or they are one text.
            OctogenNotFoundError: An older service has no such operation.
            OctogenError: The request failed otherwise.
        """
        return await self._run(count_flow(self._service, filters, catalogs))

    async def lookup_product(self, url: str) -> MerchantProductUrlLookupResponse:
        """Look up the full view of the product at a merchant's URL in Octogen's index.

        A product that no catalog has is not found, even if the merchant's page still shows it.

        Args:
            url: The product's page at the merchant.

        Raises:
            ValueError: The URL is empty.
            OctogenNotFoundError: No catalog has the product.
            OctogenError: The request failed.
        """
        return await self._run(product_flow(self._service, url))

    @shows_arguments
    async def search_products(self, **page: Unpack[SearchArguments]) -> MerchantProductListPage:
        """Read one page of a search.

        Args:
            **page: The filters of a `ProductSearch`; `catalog`, a key, or `catalogs`, up to 500 of
                them, by default all that the key may search; `cursor`, which is `next_cursor` of
                the page before, with all else unchanged; `limit`, 1 to 100 products, by default 50.

        Raises:
            pydantic.ValidationError: An argument is out of its range; a ValueError.
            OctogenNotFoundError: The catalog is not granted.
            OctogenValidationError: The service speaks the older contract, which does not have one
                of the arguments.
            OctogenError: The request failed otherwise.
        """
        return await self._run(page_flow(self._service, SearchRequest.of(**page)))

    async def iter_pages(
        self, **search: Unpack[SearchArguments]
    ) -> AsyncIterator[MerchantProductListPage]:
        """Read all pages of a search, without the products that an earlier page had.

        If a later page has the products of page 1, page 1 is read again at the end and compared.

        Args:
            **search: The arguments of `search_products`, without `cursor`; `limit` is 100 by
                default.

        Raises:
            pydantic.ValidationError: An argument is out of its range; a ValueError.
            ValueError: A cursor was passed; all pages are read, from the first one on.
            OctogenPagingError: The pages do not come to an end, or are of two states.
            OctogenError: A request failed.
        """
        arguments: SearchArguments = {"limit": MAX_PAGE_SIZE, **search}
        request = SearchRequest.of(**arguments)
        if request.cursor is not None:
            raise ValueError("cursor was passed, but all pages are read: leave it out")
        tracker = PageTracker(search_subject(request))
        seen: set[str] = set()
        following: str | None = None
        while following or not tracker.pages:
            page = await self._page(request, following, tracker)
            following = page.next_cursor
            tracker.page_received(page)
            new = {item.uuid: item for item in page.items if item.uuid not in seen}
            tracker.deduplicated(new=len(new), repeats=len(page.items) - len(new))
            seen.update(new)
            yield page.model_copy(update={"items": list(new.values())})
        while tracker.may_have_restarted:
            tracker.check_first_page(await self._page(request, None, PageTracker(tracker.subject)))

    async def iter_products(
        self, **search: Unpack[SearchArguments]
    ) -> AsyncIterator[MerchantProductListItem]:
        """Read all products of a search, each once, with the arguments of `iter_pages`."""
        async for page in self.iter_pages(**search):
            for item in page.items:
                yield item

    async def create_coverage_url_list(self, name: str) -> CoverageUrlList:
        """Create a coverage URL list: a set of product addresses that Octogen looks for each day.

        It is `provisioning` for about a minute, and URLs can be added meanwhile. An organization
        may have five lists that are not deleted.

        Args:
            name: Its name, which no other live list has: 1 to 80 characters.

        Raises:
            ValueError: The name is empty or too long.
            OctogenUrlListNameConflictError: A live list has the name. If the answer to the first
                attempt of the request was lost, it may be the one that this attempt made.
            OctogenUrlListError: The organization has as many lists as it may have.
            OctogenError: The request failed otherwise.
        """
        return await self._run(create_url_list_flow(self._service, name))

    async def list_coverage_url_lists(
        self, *, cursor: str | None = None, limit: int | None = None
    ) -> CoverageUrlListPage:
        """Read one page of the organization's coverage URL lists, newest first.

        Args:
            cursor: `next_cursor` of the page before; none for the first page.
            limit: Lists on a page, 1 to 100; by default the service's 50.

        Raises:
            ValueError: The limit is out of its range.
            OctogenUrlListError: The cursor is malformed or stale.
            OctogenError: The request failed otherwise.
        """
        return await self._run(url_lists_flow(self._service, cursor=cursor, limit=limit))

    async def get_coverage_url_list(self, url_list_id: str) -> CoverageUrlList:
        """Get a coverage URL list: its status, its size and where BigQuery has its results.

        Raises:
            ValueError: The id is empty.
            OctogenUrlListNotFoundError: The organization has no such list.
            OctogenError: The request failed otherwise.
        """
        return await self._run(url_list_flow(self._service, url_list_id))

    async def delete_coverage_url_list(self, url_list_id: str) -> CoverageUrlList:
        """Delete a coverage URL list and its results in BigQuery, which cannot be undone.

        The list is `delete_pending` until it is gone, and its name is free at once.

        Raises:
            ValueError: The id is empty.
            OctogenUrlListNotFoundError: The organization has no such list.
            OctogenError: The request failed otherwise.
        """
        return await self._run(delete_url_list_flow(self._service, url_list_id))

    async def add_coverage_url_list_urls(
        self, url_list_id: str, urls: Sequence[str]
    ) -> CoverageUrlMutationResponse:
        """Add URLs to a coverage URL list. One that it has already is accepted and changes nothing.

        The request obeys the rate limiter, as one of many, and so do the other three about URLs.

        Args:
            url_list_id: The id of the list.
            urls: 1 to 1,000 URLs of products, each of at most 2,048 characters. The service rejects
                those that are none one by one.

        Raises:
            ValueError: The id is empty, or the URLs are too many or too long.
            OctogenUrlListCapacityError: The list would get more than 100,000 URLs. None was added.
            OctogenUrlListNotFoundError: The organization has no such list.
            OctogenUrlListError: The list is being deleted.
            OctogenError: The request failed otherwise.
        """
        return await self._run(add_urls_flow(self._service, url_list_id, urls))

    async def remove_coverage_url_list_urls(
        self, url_list_id: str, urls: Sequence[str]
    ) -> CoverageUrlMutationResponse:
        """Remove URLs from a coverage URL list. One that it does not have is accepted.

        Args:
            url_list_id: The id of the list.
            urls: 1 to 1,000 URLs, in any form that the service normalizes to that of the list.

        Raises:
            ValueError: The id is empty, or the URLs are too many or too long.
            OctogenUrlListNotFoundError: The organization has no such list.
            OctogenUrlListError: The list is being deleted.
            OctogenError: The request failed otherwise.
        """
        return await self._run(remove_urls_flow(self._service, url_list_id, urls))

    async def check_coverage_url_list_urls(
        self, url_list_id: str, urls: Sequence[str]
    ) -> CoverageContainsResponse:
        """Check which URLs a coverage URL list has, and not which of them Octogen covers.

        Args:
            url_list_id: The id of the list.
            urls: 1 to 1,000 URLs, in any form that the service normalizes to that of the list.

        Raises:
            ValueError: The id is empty, or the URLs are too many or too long.
            OctogenUrlListNotFoundError: The organization has no such list.
            OctogenError: The request failed otherwise.
        """
        return await self._run(check_urls_flow(self._service, url_list_id, urls))

    async def list_coverage_url_list_urls(
        self, url_list_id: str, *, cursor: str | None = None, limit: int | None = None
    ) -> CoverageUrlListUrlsPage:
        """Read one page of the URLs of a coverage URL list, in the order of their insertion.

        Args:
            url_list_id: The id of the list.
            cursor: `next_cursor` of the page before; none for the first page.
            limit: URLs on a page, 1 to 100; by default the service's 50.

        Raises:
            ValueError: The id is empty, or the limit is out of its range.
            OctogenUrlListNotFoundError: The organization has no such list.
            OctogenUrlListError: The cursor is malformed or stale: begin again without one.
            OctogenError: The request failed otherwise.
        """
        return await self._run(
            list_urls_flow(self._service, url_list_id, cursor=cursor, limit=limit)
        )

    @property
    def deadline(self) -> float:
        """Seconds that a request may take with all its retries."""
        return self._service.retry.deadline

    @property
    def statistics(self) -> RequestStatistics:
        """The requests that this client has sent so far."""
        return self._statistics

    @property
    def generation(self) -> Generation:
        """The contract's generation that the service speaks, "seed" until it shows otherwise."""
        return self._service.generation

    async def _page(
        self, request: SearchRequest, cursor: str | None, tracker: PageTracker
    ) -> MerchantProductListPage:
        """Read one of many pages, which obey the rate limiter."""
        body = request.body() | ({"cursor": cursor} if cursor else {})
        flow = search_flow(self._service, body, tracker.subject, paced=True)
        return parsed_page(await self._run(flow), f"{tracker.subject}, page {tracker.pages + 1},")

    async def _run_all(self, flows: Sequence[Flow[T]]) -> list[T]:
        """Drive several flows at once."""
        slots = asyncio.Semaphore(_MAX_AT_ONCE)

        async def run(flow: Flow[T]) -> T:
            async with slots:
                return await self._run(flow)

        return await asyncio.gather(*map(run, flows))

    async def _run(self, flow: Flow[T]) -> T:
        """Drive a flow to its end and return its value."""
        answer: Response | TransportError | None = None
        with contextlib.closing(flow):
            while True:
                try:
                    step = flow.send(answer)
                except StopIteration as end:
                    value: T = end.value
                    return value
                self._statistics.record(step)
                answer = None
                if isinstance(step, Send):
                    answer = await self._send(step)
                elif step.until:
                    seconds = None if step.seconds == float("inf") else step.seconds
                    await asyncio.wait({asyncio.wrap_future(step.until)}, timeout=seconds)
                else:
                    await asyncio.sleep(step.seconds)

    async def _send(self, step: Send) -> Response | TransportError:
        """Send a request; the answer has no API key in it."""
        key, httpx = self._service.api_key, self._httpx
        try:
            async with asyncio.timeout(step.seconds):
                response = await self._exchange(step)
        except BodyTooLargeError as error:
            return BodyTooLargeError(key.redacted(error.response))
        except (httpx.TimeoutException, TimeoutError) as error:
            return TransportTimeoutError(type(error).__name__)
        # httpx parses the header `Location` even if it does not follow it.
        except (httpx.RequestError, httpx.InvalidURL, UnicodeError) as error:
            return TransportError(key.masked(f"{type(error).__name__}: {error}"))
        if is_cut_off(response.headers, response.content):
            return TransportError("the connection was closed in the middle of the body")
        return key.redacted(response)

    async def _exchange(self, step: Send) -> Response:
        request, seconds, charge = step
        phases = {
            phase: seconds if value is None else min(value, seconds)
            for phase, value in self._phases.items()
        }
        sent = self._http.build_request(
            request.method,
            request.url,
            headers={**HEADERS, "Accept-Encoding": "gzip"},
            content=request.content,
            extensions={"timeout": phases, "trace": functools.partial(_trace, charge)},
        )
        charge.is_sent = True  # some transports do not say what they do
        response = await self._http.send(
            sent, auth=self._service.api_key, follow_redirects=False, stream=True
        )
        try:
            headers = parsed_headers(response.headers.raw)
            head = Response(
                response.status_code, headers, request=request, library=self._httpx.__name__
            )
            charge.response_begun(head)
            body = bytearray()
            async for chunk in response.aiter_bytes():
                body += chunk
                if len(body) > http.MAX_BODY_BYTES:
                    raise BodyTooLargeError(head)
        finally:
            await response.aclose()
        return replace(head, content=bytes(body))


async def _trace(charge: Charge, event: str, info: dict[str, Any]) -> None:
    """Note how far a transport is: while it connects, it has not sent the request."""
    if event.startswith("connection."):
        charge.is_sent = False
    elif event.endswith("send_request_headers.started"):
        charge.is_sent = info["request"].method != b"CONNECT"
