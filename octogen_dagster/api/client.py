"""OctogenClient: the operations of the service.

How a request is sent, retried and limited is in `requester`.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

from typing_extensions import Self, Unpack

from octogen_dagster.api.catalog_states import CatalogList, no_catalog_list, parsed_catalog_list
from octogen_dagster.api.credentials import ApiKey
from octogen_dagster.api.domain_endpoint import fetch_domain
from octogen_dagster.api.httpx_transport import HttpxTransport
from octogen_dagster.api.lookup_endpoint import LookupEndpoint, parsed_lookup
from octogen_dagster.api.models import (
    DomainCoverageResponse,
    MerchantCatalogSummary,
    MerchantProductListItem,
    MerchantProductListPage,
    MerchantProductUrlLookupResponse,
    MeResponse,
)
from octogen_dagster.api.pacing import RateLimiter
from octogen_dagster.api.paging import PageT, PageTracker
from octogen_dagster.api.product_count import FacetCounts, count_request
from octogen_dagster.api.refusals import ServiceRefusals
from octogen_dagster.api.requester import HEADERS, Requester, RequestStatistics
from octogen_dagster.api.responses import parsed
from octogen_dagster.api.retry import RetryPolicy
from octogen_dagster.api.search import (
    MAX_PAGE_SIZE,
    SearchArguments,
    SearchFilters,
    SearchRequest,
    shows_arguments,
)
from octogen_dagster.api.search_endpoint import Generation, SearchEndpoint
from octogen_dagster.api.spending import Spending
from octogen_dagster.api.urls import (
    DEFAULT_BASE_URL,
    checked_base_url,
    host_base_url,
    may_use_proxy,
)
from octogen_dagster.api.wait_log import WaitLog
from octogen_dagster.errors import OctogenNotFoundError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    import httpx

    from octogen_dagster.api.http import Response, Transport
    from octogen_dagster.api.retry import Sleep

DEFAULT_TIMEOUT = 30.0
_T = TypeVar("_T")
_CATALOGS = "The list of catalogs"


class OctogenClient:
    """Octogen's REST API, asynchronous.

    Use it as `async with OctogenClient() as client`, or call `aclose()`.

    Args:
        api_key: The API key; by default `OCTOGEN_PLATFORM_API_KEY`, then `OCTO_API_KEY`.
        base_url: The base URL of the API: https, or http on this machine. By default that at
            `OCTOGEN_HOST`, or else Octogen's own.
        timeout: Seconds for one attempt of a request, to the last byte of the response; an
            `httpx.Timeout`, as that of `http_client`, limits each phase of it instead.
        http_client: A client to send requests with; it stays open when this one is closed.
        retry: How requests are retried; its deadline holds for all attempts together.
        rate_limiter: Limits how fast pages are read; clients that run at once may share one.
        spending: Counts and limits what the requests cost; clients may share one.
        refusals: What the service is known to refuse; clients may share it.
        _transport: What sends the requests instead; not closed with the client.
        _sleep: What waits instead.
        _waits: Says why requests wait or are repeated; clients may share it.

    Raises:
        MissingAPIKeyError: There is no API key.
        ValueError: base_url, the host or the API key is malformed.
    """

    def __init__(
        self,
        *,
        api_key: str | ApiKey | None = None,
        base_url: str = DEFAULT_BASE_URL,
        timeout: float | httpx.Timeout = DEFAULT_TIMEOUT,
        http_client: httpx.AsyncClient | None = None,
        retry: RetryPolicy | None = None,
        rate_limiter: RateLimiter | None = None,
        spending: Spending | None = None,
        refusals: ServiceRefusals | None = None,
        _transport: Transport | None = None,
        _sleep: Sleep | None = None,
        _waits: WaitLog | None = None,
    ) -> None:
        try:
            key = api_key if isinstance(api_key, ApiKey) else ApiKey(api_key)
        finally:
            del api_key  # no traceback that shows locals is to show it
        if base_url is DEFAULT_BASE_URL:  # an equal text that was passed is another object
            base_url = host_base_url()
        self._base_url = checked_base_url(base_url, key.masked)
        if http_client is not None and timeout == DEFAULT_TIMEOUT:
            timeout = http_client.timeout
        self._transport = _transport or HttpxTransport(
            key, HEADERS, timeout, http_client, trust_env=may_use_proxy(self._base_url)
        )
        self._owns_transport = _transport is None
        self._retry = retry or RetryPolicy()
        self._requester = Requester(
            self._transport,
            self._base_url,
            key,
            timeout=timeout,
            retry=self._retry,
            rate_limiter=rate_limiter or RateLimiter(),
            spending=spending or Spending(),
            waits=_waits or WaitLog(),
            sleep=_sleep or asyncio.sleep,
        )
        refusals = refusals or ServiceRefusals()
        self._search = SearchEndpoint(self._requester, refusals.search)
        self._lookup = LookupEndpoint(self._requester, refusals.lookup)

    def __repr__(self) -> str:
        return f"OctogenClient(base_url={self._base_url!r})"

    def __reduce__(self) -> str:
        raise TypeError("An OctogenClient holds connections and cannot be pickled.")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections, unless they belong to a client that was passed in."""
        if self._owns_transport:
            await self._transport.aclose()

    async def list_catalogs(self) -> list[MerchantCatalogSummary]:
        """List the catalogs that are granted to the API key; the list may be empty.

        Raises:
            OctogenNotFoundError: The service has no list of catalogs (current generation).
            OctogenError: The request failed otherwise.
        """
        return parsed(list[MerchantCatalogSummary], await self._get_catalogs(), _CATALOGS)

    async def list_catalog_states(self) -> CatalogList:
        """List the catalogs that are granted to the API key, as `GrantedCatalogs` does.

        It is the same request as `list_catalogs`, decoded faster.

        Raises:
            OctogenNotFoundError: The service has no list of catalogs (current generation).
            OctogenError: The request failed otherwise.
        """
        return parsed_catalog_list(await self._get_catalogs(), _CATALOGS)

    async def get_me(self) -> MeResponse:
        """Get the organisation of the API key and its rate limit.

        Raises:
            OctogenError: The request failed; a service of the seed generation answers 404.
        """
        subject = "The account of the API key"
        return parsed(MeResponse, await self._requester.request("GET", "/me", subject), subject)

    async def get_domain(self, host: str, *, paced: bool = False) -> DomainCoverageResponse:
        """Get the catalogs that serve a shop's host, with counts, facets and prices.

        Args:
            host: The host, such as "shop.example".
            paced: True for one of many hosts, which obey the rate limiter.

        Raises:
            ValueError: The host is empty.
            OctogenNotFoundError: No catalog serves the host, or the service has no such operation
                (seed generation).
            OctogenError: The request failed otherwise.
        """
        return await fetch_domain(self._requester, host, self._base_url, paced=paced)

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
            OctogenNotFoundError: The service has no such operation (seed generation).
            OctogenError: The request failed otherwise.
        """
        subject, path = "The count of products", "/products/facet-counts"
        body = count_request(filters, catalogs)
        try:
            response = await self._requester.request("POST", path, subject, body)
        except OctogenNotFoundError as error:
            raise error.with_message(
                f"{subject} cannot be had: {self._base_url} has no such operation (404). A service "
                "of the older contract counts whole catalogs only: leave out the filters."
            ) from None
        return parsed(FacetCounts, response, subject).products(filters)

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
        return await self._lookup.look_up(url, parsed_lookup)

    async def get_raw_lookup(self, url: str, read_lookup: Callable[[Response, str], _T]) -> _T:
        """Look up a product as one of many, which obey the rate limiter.

        Args:
            url: The product's page at the merchant.
            read_lookup: Turns the response into a value; its second argument begins error messages.

        Raises:
            ValueError: The URL is empty.
            OctogenError: The request failed.
        """
        return await self._lookup.look_up(url, read_lookup, paced=True)

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
        request = SearchRequest.of(**page)
        subject = _subject(request)
        return _parsed_page(await self._search.send(request.body(), subject), subject)

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
        tracker = PageTracker(_subject(request))
        seen: set[str] = set()
        async for page in self.iter_raw_pages(request, tracker, _parsed_page):
            new = {item.uuid: item for item in page.items if item.uuid not in seen}
            tracker.deduplicated(new=len(new), repeats=len(page.items) - len(new))
            seen.update(new)
            yield page.model_copy(update={"items": list(new.values())})
        if tracker.may_have_restarted:
            tracker.check_first_page(
                await self.get_raw_page(request, tracker.subject, 1, _parsed_page)
            )

    async def iter_products(
        self, **search: Unpack[SearchArguments]
    ) -> AsyncIterator[MerchantProductListItem]:
        """Read all products of a search, each once, with the arguments of `iter_pages`."""
        async for page in self.iter_pages(**search):
            for item in page.items:
                yield item

    async def iter_raw_pages(
        self,
        request: SearchRequest,
        tracker: PageTracker,
        read_page: Callable[[Response, str], PageT],
    ) -> AsyncIterator[PageT]:
        """Read all pages of a search with `read_page`; repeated products stay in.

        Args:
            request: The request of the first page.
            tracker: Checks the order of the pages. The caller must tell its `deduplicated` how
                many products of each page were new.
            read_page: Turns a response into a page; its second argument begins error messages.

        Raises:
            OctogenPagingError: The pages loop, restart or do not come to an end.
            OctogenError: A request failed.
        """
        body = request.body()
        while True:
            subject = f"{tracker.subject}, page {tracker.pages + 1},"
            page = read_page(await self._search.send(body, tracker.subject, paced=True), subject)
            tracker.page_received(page)
            yield page
            if not page.next_cursor:
                return
            body["cursor"] = page.next_cursor

    async def get_raw_page(
        self,
        request: SearchRequest,
        subject: str,
        number: int,
        read_page: Callable[[Response, str], PageT],
    ) -> PageT:
        """Read one page of a bulk read, which obeys the rate limiter.

        Args:
            request: The request of the page.
            subject: What is read; begins error messages.
            number: The number of the page, for error messages.
            read_page: Turns a response into a page; its second argument begins error messages.

        Raises:
            OctogenError: The request failed.
        """
        response = await self._search.send(request.body(), subject, paced=True)
        return read_page(response, f"{subject}, page {number},")

    @property
    def deadline(self) -> float:
        """Seconds that a request may take with all its retries."""
        return self._retry.deadline

    @property
    def statistics(self) -> RequestStatistics:
        """What this client has sent so far."""
        return self._requester.statistics

    @property
    def generation(self) -> Generation:
        """The contract's generation that the service speaks, "seed" until it shows otherwise."""
        return self._search.generation

    async def _get_catalogs(self) -> Response:
        try:
            return await self._requester.request("GET", "/catalogs", _CATALOGS)
        except OctogenNotFoundError as error:
            raise error.with_message(no_catalog_list(_CATALOGS, self._base_url)) from None


def _subject(request: SearchRequest) -> str:
    return f"Catalog {request.catalog!r}" if request.catalog else "The search of all catalogs"


def _parsed_page(response: Response, subject: str) -> MerchantProductListPage:
    return parsed(MerchantProductListPage, response, subject)
