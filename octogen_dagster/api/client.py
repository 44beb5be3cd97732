"""OctogenClient: the service's operations and the generations of its contract.

How a request is sent, retried and paced is in `requester`.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, TypeVar

from typing_extensions import Self

from octogen_dagster.api.credentials import ApiKey
from octogen_dagster.api.models import (
    MAX_PAGE_SIZE,
    Facet,
    MerchantCatalogSummary,
    MerchantProductListItem,
    MerchantProductListPage,
    MerchantProductUrlLookupResponse,
    SearchRequest,
)
from octogen_dagster.api.pacing import RateLimiter
from octogen_dagster.api.paging import PageT, PageTracker
from octogen_dagster.api.requester import Requester, RequestStatistics
from octogen_dagster.api.responses import field_path, parsed
from octogen_dagster.api.retry import RetryPolicy
from octogen_dagster.api.urls import DEFAULT_BASE_URL, checked_base_url, may_use_proxy
from octogen_dagster.errors import (
    OctogenNotFoundError,
    OctogenValidationError,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence
    from types import TracebackType

    import httpx

    from octogen_dagster.api.transport import BlockingClient

_Catalogs = TypeVar("_Catalogs")

DEFAULT_TIMEOUT = 30.0


class OctogenClient:
    """Octogen's REST API, asynchronous.

    Use it as `async with OctogenClient() as client`, or call `aclose()`.

    Args:
        api_key: The API key; by default `OCTO_API_KEY`, then `OCTOGEN_PLATFORM_API_KEY`.
        base_url: Where the API is; https, or http on this machine.
        timeout: Seconds for each phase of one try of a request, or an `httpx.Timeout`. When
            `http_client` is given, its own timeout counts unless another one is named here.
        http_client: A client to send requests with; it stays open when this one is closed.
        retry: How requests are retried.
        rate_limiter: Limits how fast pages are read; clients that run at once may share one.

    Raises:
        MissingAPIKeyError: There is no key.
        ValueError: base_url or the key is malformed.
    """

    def __init__(
        self,
        *,
        api_key: str | ApiKey | None = None,
        base_url: str = DEFAULT_BASE_URL,
        timeout: float | httpx.Timeout = DEFAULT_TIMEOUT,
        http_client: httpx.AsyncClient | BlockingClient | None = None,
        retry: RetryPolicy | None = None,
        rate_limiter: RateLimiter | None = None,
    ) -> None:
        import httpx

        self._base_url = checked_base_url(base_url)
        key = api_key if isinstance(api_key, ApiKey) else ApiKey(api_key)
        self._owns_http = http_client is None
        self._http = http_client or httpx.AsyncClient(trust_env=may_use_proxy(self._base_url))
        if http_client is not None and timeout == DEFAULT_TIMEOUT:
            timeout = http_client.timeout
        self._requester = Requester(
            self._http,
            self._base_url,
            key,
            timeout=httpx.Timeout(timeout),
            retry=retry or RetryPolicy(),
            rate_limiter=rate_limiter or RateLimiter(),
        )
        self._catalog_field = "catalog"

    def __repr__(self) -> str:
        return f"OctogenClient(base_url={self._base_url!r})"

    def __reduce__(self) -> str:
        raise TypeError("An OctogenClient holds connections and cannot be pickled.")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections, unless they belong to a client that was passed in."""
        if self._owns_http:
            await self._http.aclose()

    async def list_catalogs(self) -> list[MerchantCatalogSummary]:
        """The catalogs granted to the key; none is an empty list.

        Raises:
            OctogenNotFoundError: The service has no list of catalogs (current generation).
            OctogenError: Any other failure.
        """
        return await self.read_catalogs(functools.partial(parsed, list[MerchantCatalogSummary]))

    async def read_catalogs(self, read: Callable[[httpx.Response, str], _Catalogs]) -> _Catalogs:
        """The catalogs granted to the key, as `read` makes them of the answer.

        Args:
            read: Its second argument begins error messages.

        Raises:
            OctogenNotFoundError: The service has no list of catalogs (current generation).
            OctogenError: Any other failure.
        """
        subject = "The list of catalogs"
        try:
            response = await self._requester.request("GET", "/catalogs", subject)
        except OctogenNotFoundError as error:
            raise OctogenNotFoundError(
                f"{subject} does not exist at {self._base_url} (404): the service answers the "
                "current contract, which has none. Name the catalogs yourself, as partition keys "
                "or in ProductSearch(catalogs=[...]).",
                error.response,
                error.detail,
                error.retry_after,
            ) from None
        return read(response, subject)

    async def lookup_product(
        self, url: str, *, paced: bool = False
    ) -> MerchantProductUrlLookupResponse:
        """The full view of the product at a merchant's URL.

        Args:
            url: The product's page at the merchant.
            paced: Whether this is one of many lookups, which keep to the pace of bulk reads.

        Raises:
            ValueError: The URL is empty.
            OctogenNotFoundError: No granted catalog has the product.
            OctogenError: Any other failure.
        """
        if not url.strip():
            raise ValueError("url must not be empty")
        subject = f"The product at {url}"
        response = await self._requester.request(
            "POST", "/products/lookup", subject, {"url": url}, paced=paced
        )
        return parsed(MerchantProductUrlLookupResponse, response, subject)

    async def search_products(
        self,
        *,
        catalog: str | None = None,
        q: str | None = None,
        facets: Sequence[Facet | Mapping[str, Any]] | None = None,
        price_min: float | None = None,
        price_max: float | None = None,
        cursor: str | None = None,
        limit: int = 50,
    ) -> MerchantProductListPage:
        """One page of a search.

        Args:
            catalog: A catalog key; None searches all granted catalogs.
            q: Keywords.
            facets: Filters, as `Facet` or `{"name": ..., "values": [...]}`.
            price_min: Lowest current price, inclusive.
            price_max: Highest current price, inclusive.
            cursor: `next_cursor` of the page before, with all else unchanged.
            limit: Products on a page, 1 to 100.

        Raises:
            pydantic.ValidationError: A parameter is out of its range; a ValueError.
            OctogenNotFoundError: The catalog is not granted.
            OctogenError: Any other failure.
        """
        request = _search_request(
            catalog=catalog,
            q=q,
            facets=facets,
            price_min=price_min,
            price_max=price_max,
            cursor=cursor,
            limit=limit,
        )
        response = await self._search(request.body(), _subject(catalog))
        return parsed(MerchantProductListPage, response, _subject(catalog))

    async def iter_pages(
        self,
        *,
        catalog: str | None = None,
        q: str | None = None,
        facets: Sequence[Facet | Mapping[str, Any]] | None = None,
        price_min: float | None = None,
        price_max: float | None = None,
        limit: int = MAX_PAGE_SIZE,
    ) -> AsyncIterator[MerchantProductListPage]:
        """All pages of a search, products that came before removed.

        The arguments are those of `search_products`.

        Raises:
            pydantic.ValidationError: A parameter is out of its range; a ValueError.
            OctogenPagingError: The pages do not come to an end.
            OctogenError: Any other failure.
        """
        request = _search_request(
            catalog=catalog,
            q=q,
            facets=facets,
            price_min=price_min,
            price_max=price_max,
            limit=limit,
        )
        walk = PageTracker(_subject(catalog))
        seen: set[str] = set()
        async for page in self.iter_raw_pages(request, walk, _list_page):
            fresh = {item.uuid: item for item in page.items if item.uuid not in seen}
            walk.deduplicated(new=len(fresh), repeats=len(page.items) - len(fresh))
            seen.update(fresh)
            yield page.model_copy(update={"items": list(fresh.values())})

    async def iter_products(
        self,
        *,
        catalog: str | None = None,
        q: str | None = None,
        facets: Sequence[Facet | Mapping[str, Any]] | None = None,
        price_min: float | None = None,
        price_max: float | None = None,
        limit: int = MAX_PAGE_SIZE,
    ) -> AsyncIterator[MerchantProductListItem]:
        """All products of a search, each once. Arguments and errors are those of `iter_pages`."""
        async for page in self.iter_pages(
            catalog=catalog,
            q=q,
            facets=facets,
            price_min=price_min,
            price_max=price_max,
            limit=limit,
        ):
            for item in page.items:
                yield item

    async def iter_raw_pages(
        self,
        request: SearchRequest,
        walk: PageTracker,
        read_page: Callable[[httpx.Response, str], PageT],
    ) -> AsyncIterator[PageT]:
        """All pages of a search, each read by `read_page`; repeated products stay in.

        Args:
            request: The first page's request.
            walk: Notes the pages; its `count` must be told what was new on each.
            read_page: Turns an answer into a page; its second argument begins error messages.

        Raises:
            OctogenPagingError: The pages loop or keep starting again.
            OctogenError: Any other failure.
        """
        while True:
            page = await self.get_raw_page(request, walk.subject, walk.pages + 1, read_page)
            walk.page_received(page)
            yield page
            if not page.next_cursor:
                return
            request = request.following(page.next_cursor)

    async def get_raw_page(
        self,
        request: SearchRequest,
        subject: str,
        number: int,
        read_page: Callable[[httpx.Response, str], PageT],
    ) -> PageT:
        """One page of a bulk read, at its pace.

        Args:
            request: What to ask for.
            subject: What is read, to begin error messages with.
            number: Which page of it this is, for error messages.
            read_page: Turns an answer into a page; its second argument begins error messages.

        Raises:
            OctogenError: Any failure.
        """
        response = await self._search(request.body(), subject, paced=True)
        return read_page(response, f"{subject}, page {number},")

    @property
    def statistics(self) -> RequestStatistics:
        """What this client did so far."""
        return self._requester.statistics

    @property
    def generation(self) -> str:
        """The field that names a catalog in the contract the service answers, as far as known."""
        return self._catalog_field

    async def _search(
        self, body: Mapping[str, Any], subject: str, *, paced: bool = False
    ) -> httpx.Response:
        """One search page, in the generation of the contract that the service answers."""
        path = "/products/search"
        if "catalog" not in body:
            return await self._requester.request("POST", path, subject, body, paced=paced)
        if self._catalog_field == "catalog":
            try:
                return await self._requester.request("POST", path, subject, body, paced=paced)
            except OctogenValidationError as error:
                if not _names_catalog(error.detail):
                    raise
        current = {name: value for name, value in body.items() if name != "catalog"}
        current["catalogs"] = [body["catalog"]]
        response = await self._requester.request("POST", path, subject, current, paced=paced)
        self._catalog_field = "catalogs"
        return response


def _search_request(**fields: Any) -> SearchRequest:
    return SearchRequest(**{name: value for name, value in fields.items() if value is not None})


def _subject(catalog: str | None) -> str:
    return f"Catalog {catalog!r}" if catalog else "The search of all catalogs"


def _list_page(response: httpx.Response, subject: str) -> MerchantProductListPage:
    return parsed(MerchantProductListPage, response, subject)


def _names_catalog(detail: Any) -> bool:
    """Whether a 422's detail refuses the field `catalog`."""
    return isinstance(detail, list) and any(
        isinstance(entry, dict) and field_path(entry)[-1:] == ["catalog"] for entry in detail
    )
