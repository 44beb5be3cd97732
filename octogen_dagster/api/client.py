"""OctogenClient: the asynchronous client, on httpx or httpx2."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from typing_extensions import Unpack

from octogen_dagster.api.catalog_states import parsed_catalog_list
from octogen_dagster.api.credentials import (
    DEFAULT_BASE_URL,
    ApiKey,
    configured_base_url,
)
from octogen_dagster.api.driver import AsyncDriver, phases_of
from octogen_dagster.api.flow import RequestStatistics
from octogen_dagster.api.operations import (
    CATALOGS,
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
from octogen_dagster.api.pacing import RateLimiter
from octogen_dagster.api.paging import PageTracker
from octogen_dagster.api.retry import RetryPolicy
from octogen_dagster.api.search import (
    MAX_PAGE_SIZE,
    SearchArguments,
    SearchRequest,
    shows_arguments,
)
from octogen_dagster.api.service import DEFAULT_TIMEOUT, Generation, Service
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
    from octogen_dagster.api.url_lists import (
        CoverageContainsResponse,
        CoverageUrlList,
        CoverageUrlListPage,
        CoverageUrlListUrlsPage,
        CoverageUrlMutationResponse,
    )


class OctogenClient:
    """An asynchronous client for Octogen's REST API.

    Use it as `async with OctogenClient() as client`, or call `aclose()` when done.

    Args:
        api_key: The API key. Defaults to the environment variable `STOREROUTER_API_KEY`,
            `OCTOGEN_PLATFORM_API_KEY` or `OCTO_API_KEY`, in this order.
        base_url: The API's base URL. It must use https, except on this machine. Defaults to
            `OCTOGEN_BASE_URL`, then the API at `OCTOGEN_HOST`, then Octogen's API.
        timeout: Maximum seconds for one attempt, up to the last byte of the response. A `Timeout`
            from httpx or httpx2 limits each phase of an attempt instead. You can pass a `Timeout`
            here or set it on `http_client`.
        http_client: The httpx or httpx2 client that sends the requests. Defaults to a new httpx
            client. A client that you pass is not closed, and the `response` in errors is an object
            from its library.
        retry: The retry settings; `deadline` limits all attempts together.
        rate_limiter: Limits the request rate for reads of many pages. Concurrent clients can share
            a rate limiter.
        spending: Counts and limits costs. Clients can share it.
        _service: A service with all settings, instead of the other arguments.

    Raises:
        MissingAPIKeyError: No API key was passed or found in the environment.
        ValueError: `base_url`, `OCTOGEN_HOST` or the API key is malformed.
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
        if http_client is not None and timeout == DEFAULT_TIMEOUT:
            timeout = http_client.timeout
        phases = phases_of(timeout)
        if _service is None:
            try:
                key = api_key if isinstance(api_key, ApiKey) else ApiKey(api_key)
            finally:
                del api_key  # keep it out of tracebacks that show locals
            _service = Service(
                api_key=key,
                # Compared by identity, because users can pass an equal string.
                base_url=configured_base_url() if base_url is DEFAULT_BASE_URL else base_url,
                timeout=timeout if isinstance(timeout, int | float) else float("inf"),
                phase_timeout=phases["read"] or float("inf"),
                retry=retry or RetryPolicy(),
                limiter=rate_limiter or RateLimiter(),
                spending=spending or Spending(),
            )
        self._service = _service
        self._driver = AsyncDriver(_service, phases, http_client)

    def __repr__(self) -> str:
        service = getattr(self, "_service", None)  # missing if __init__ raised
        return f"OctogenClient(base_url={service and service.base_url!r})"

    def __reduce__(self) -> str:
        raise TypeError("An OctogenClient has open connections and cannot be pickled.")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections. A client passed as `http_client` stays open."""
        await self._driver.aclose()

    async def list_catalogs(self) -> list[MerchantCatalogSummary]:
        """List the catalogs granted to the API key. The list can be empty.

        Raises:
            OctogenNotFoundError: The service does not list catalogs. Octogen's current
                service always responds with 404.
            OctogenError: The request failed for another reason.
        """
        return await self._driver.run(list_catalogs_flow(self._service))

    async def list_catalog_states(self) -> CatalogList:
        """List the catalogs granted to the API key. `GrantedCatalogs` calls this method.

        The request is the same as in `list_catalogs`, but the response is decoded faster.

        Raises:
            OctogenNotFoundError: The service does not list catalogs. Octogen's current
                service always responds with 404.
            OctogenError: The request failed for another reason.
        """
        return parsed_catalog_list(await self._driver.run(catalogs_flow(self._service)), CATALOGS)

    async def get_me(self) -> MeResponse:
        """Get the API key's organization and rate limit.

        Raises:
            OctogenError: The request failed. Older services respond with 404.
        """
        return await self._driver.run(me_flow(self._service))

    async def get_domain(self, host: str, *, paced: bool = False) -> DomainCoverageResponse:
        """Get the catalogs for a shop's host, with counts, facets and prices.

        Args:
            host: The host, such as "shop.example".
            paced: If true, wait for the rate limiter before the request. Set this if you look up
                many hosts.

        Raises:
            ValueError: The host is empty.
            OctogenNotFoundError: No catalog covers the host, or the service is too old to look up
                hosts.
            OctogenError: The request failed for another reason.
        """
        return await self._driver.run(domain_flow(self._service, host, paced=paced))

    async def count_products(self, filters: SearchFilters, catalogs: Sequence[str] = ()) -> int:
        """Count the products that match a search's filters, free of charge.

        The result is a lower bound. The service counts products by top-level category, so it misses
        products without a category and products outside the 1,000 largest categories. Keywords do
        not affect the count. If `understand` is true, Octogen derives filters from `q`, and these
        filters affect the count.

        Args:
            filters: The search, such as a `ProductSearch`.
            catalogs: Up to 500 catalog keys. Defaults to the catalogs in the `ProductSearch`, or to
                all catalogs if the search does not list any.

        Raises:
            ValueError: `catalogs` is a string, has too many keys or contains an empty key.
            OctogenNotFoundError: The service is too old to count products.
            OctogenError: The request failed for another reason.
        """
        return await self._driver.run(count_flow(self._service, filters, catalogs))

    async def lookup_product(self, url: str) -> MerchantProductUrlLookupResponse:
        """Look up a product by its URL and return its full view from Octogen's index.

        A product that no catalog contains is not found, even if the merchant still offers it.

        Args:
            url: The product's URL at the merchant.

        Raises:
            ValueError: The URL is empty.
            OctogenNotFoundError: No catalog contains the product.
            OctogenError: The request failed for another reason.
        """
        return await self._driver.run(product_flow(self._service, url))

    @shows_arguments
    async def search_products(self, **page: Unpack[SearchArguments]) -> MerchantProductListPage:
        """Read one search page.

        Args:
            **page: The filters of a `ProductSearch`, and these arguments:
                `catalog` or `catalogs`: One catalog key, or a list of up to 500 keys. Defaults to
                all catalogs that the API key can search.
                `cursor`: The previous page's `next_cursor`. Leave all other arguments unchanged.
                `limit`: Products per page, from 1 to 100. Defaults to 50.

        Raises:
            pydantic.ValidationError: An argument is out of range. This is also a ValueError.
            OctogenNotFoundError: The catalog is not granted to the API key.
            OctogenValidationError: The service has the older API contract, which does not support
                one of the arguments.
            OctogenError: The request failed for another reason.
        """
        return await self._driver.run(page_flow(self._service, SearchRequest.of(**page)))

    async def iter_pages(
        self, **search: Unpack[SearchArguments]
    ) -> AsyncIterator[MerchantProductListPage]:
        """Read all pages of a search. Each page omits the products of earlier pages.

        If a later page repeats page 1's products, page 1 is requested again at the end and compared
        with the first response.

        Args:
            **search: The arguments of `search_products`, except `cursor`. `limit` defaults to 100.

        Raises:
            pydantic.ValidationError: An argument is out of range. This is also a ValueError.
            ValueError: A cursor was passed, but reading starts at page 1.
            OctogenPagingError: The pages do not end, or the catalog changed during the read.
            OctogenError: A request failed.
        """
        arguments: SearchArguments = {"limit": MAX_PAGE_SIZE, **search}
        request = SearchRequest.of(**arguments)
        if request.cursor is not None:
            raise ValueError("`cursor` cannot be set, because all pages are read. Remove it.")
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
        """Read all products in a search without duplicates.

        This method takes the same arguments as `iter_pages`.
        """
        async for page in self.iter_pages(**search):
            for item in page.items:
                yield item

    async def create_coverage_url_list(self, name: str) -> CoverageUrlList:
        """Create a coverage URL list: product URLs that Octogen looks for every day.

        The new list has the status `provisioning` for about a minute. You can add URLs during this
        time. An organization can have up to five lists.

        Args:
            name: The list's name, unique among the organization's lists: 1 to 80 characters.

        Raises:
            ValueError: The name is empty or too long.
            OctogenUrlListNameConflictError: A list already has this name. If the response to a
                first attempt was lost, that attempt might have created the list.
            OctogenUrlListError: The organization has reached its limit of lists.
            OctogenError: The request failed for another reason.
        """
        return await self._driver.run(create_url_list_flow(self._service, name))

    async def list_coverage_url_lists(
        self, *, cursor: str | None = None, limit: int | None = None
    ) -> CoverageUrlListPage:
        """Read one page of the organization's coverage URL lists, newest first.

        Args:
            cursor: The previous page's `next_cursor`, or None for the first page.
            limit: Lists per page, from 1 to 100. The service's default is 50.

        Raises:
            ValueError: The limit is out of range.
            OctogenUrlListError: The cursor is malformed or expired.
            OctogenError: The request failed for another reason.
        """
        return await self._driver.run(url_lists_flow(self._service, cursor=cursor, limit=limit))

    async def get_coverage_url_list(self, url_list_id: str) -> CoverageUrlList:
        """Get a coverage URL list's status, size and BigQuery listing.

        Raises:
            ValueError: The id is empty.
            OctogenUrlListNotFoundError: The organization has no such list.
            OctogenError: The request failed for another reason.
        """
        return await self._driver.run(url_list_flow(self._service, url_list_id))

    async def delete_coverage_url_list(self, url_list_id: str) -> CoverageUrlList:
        """Delete a coverage URL list and its BigQuery results. This cannot be undone.

        The list has the status `delete_pending` until the deletion is complete. You can reuse the
        list's name immediately.

        Raises:
            ValueError: The id is empty.
            OctogenUrlListNotFoundError: The organization has no such list.
            OctogenError: The request failed for another reason.
        """
        return await self._driver.run(delete_url_list_flow(self._service, url_list_id))

    async def add_coverage_url_list_urls(
        self, url_list_id: str, urls: Sequence[str]
    ) -> CoverageUrlMutationResponse:
        """Add URLs to a coverage URL list. URLs already in the list are accepted.

        The four methods that add, remove, check and list URLs wait for the rate limiter.

        Args:
            url_list_id: The list's id.
            urls: 1 to 1,000 product URLs with at most 2,048 characters each. The service rejects
                invalid URLs individually.

        Raises:
            ValueError: The id is empty, there are too many URLs, or a URL is too long.
            OctogenUrlListCapacityError: The list would exceed 100,000 URLs. No URL was added.
            OctogenUrlListNotFoundError: The organization has no such list.
            OctogenUrlListError: The list is being deleted.
            OctogenError: The request failed for another reason.
        """
        return await self._driver.run(add_urls_flow(self._service, url_list_id, urls))

    async def remove_coverage_url_list_urls(
        self, url_list_id: str, urls: Sequence[str]
    ) -> CoverageUrlMutationResponse:
        """Remove URLs from a coverage URL list. URLs that are not in the list are accepted.

        Args:
            url_list_id: The list's id.
            urls: 1 to 1,000 URLs. The service compares normalized URLs.

        Raises:
            ValueError: The id is empty, there are too many URLs, or a URL is too long.
            OctogenUrlListNotFoundError: The organization has no such list.
            OctogenUrlListError: The list is being deleted.
            OctogenError: The request failed for another reason.
        """
        return await self._driver.run(remove_urls_flow(self._service, url_list_id, urls))

    async def check_coverage_url_list_urls(
        self, url_list_id: str, urls: Sequence[str]
    ) -> CoverageContainsResponse:
        """Check which URLs are in a coverage URL list.

        This method does not check whether Octogen covers the products.

        Args:
            url_list_id: The list's id.
            urls: 1 to 1,000 URLs. The service compares normalized URLs.

        Raises:
            ValueError: The id is empty, there are too many URLs, or a URL is too long.
            OctogenUrlListNotFoundError: The organization has no such list.
            OctogenError: The request failed for another reason.
        """
        return await self._driver.run(check_urls_flow(self._service, url_list_id, urls))

    async def list_coverage_url_list_urls(
        self, url_list_id: str, *, cursor: str | None = None, limit: int | None = None
    ) -> CoverageUrlListUrlsPage:
        """Read one page of a coverage URL list's URLs, in insertion order.

        Args:
            url_list_id: The list's id.
            cursor: The previous page's `next_cursor`, or None for the first page.
            limit: URLs per page, from 1 to 100. The service's default is 50.

        Raises:
            ValueError: The id is empty, or the limit is out of range.
            OctogenUrlListNotFoundError: The organization has no such list.
            OctogenUrlListError: The cursor is malformed or expired. Start again without a cursor.
            OctogenError: The request failed for another reason.
        """
        return await self._driver.run(
            list_urls_flow(self._service, url_list_id, cursor=cursor, limit=limit)
        )

    @property
    def deadline(self) -> float:
        """Maximum duration of a request in seconds, including all retries."""
        return self._service.retry.deadline

    @property
    def statistics(self) -> RequestStatistics:
        """Counts of requests and retries so far, and seconds spent waiting for the rate limit."""
        return self._driver.statistics

    @property
    def generation(self) -> Generation:
        """The service's API contract: "seed" (the older contract) or "current".

        The value is "seed" until a response shows that the service has the current contract.
        """
        return self._service.generation

    async def _page(
        self, request: SearchRequest, cursor: str | None, tracker: PageTracker
    ) -> MerchantProductListPage:
        body = request.body() | ({"cursor": cursor} if cursor else {})
        flow = search_flow(self._service, body, tracker.subject, paced=True)
        return parsed_page(
            await self._driver.run(flow), f"{tracker.subject}, page {tracker.pages + 1},"
        )
