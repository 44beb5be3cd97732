"""Estimate a read's requests, cost and time before it begins. No I/O.

For whole catalogs, product counts come from the catalog source. For a search, the service counts
products by top-level category only, so the total misses products without a category.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import Field

from octogen_dagster.api.models import ResponseModel
from octogen_dagster.api.search import MAX_CATALOGS, Facet, FacetName, SearchFilters
from octogen_dagster.api.spending import dollars
from octogen_dagster.printable import count

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from decimal import Decimal

    from octogen_dagster.api.service import Service

_CATEGORY = FacetName.CATEGORY_PATH_DEPTH_0.value
_MAX_CATEGORIES = 1_000
_NOT_COUNTED = {"understand", "relax", "similar_to_brands"}
_FIELDS = {*SearchFilters.model_fields, "catalogs"} - _NOT_COUNTED


@dataclass(frozen=True)
class Estimate:
    """The estimated requests, cost and duration for a read. Only charged requests count."""

    products: int
    requests: int  # charged ones only
    kind: str  # "page" or "lookup"
    price_usd: float  # per request; 0 if costs are not shown
    requests_per_minute: float | None  # the rate limit; None if unknown
    reserved_percent: float  # the share of the rate limit left for others

    @property
    def cost_usd(self) -> Decimal:
        """The total cost in dollars."""
        return dollars(self.price_usd) * self.requests

    @property
    def limit_seconds(self) -> float | None:
        """The shortest time in seconds that the rate limit allows; None if the limit is unknown.

        The token bucket holds one minute's requests and is assumed to be full when the read begins.
        """
        if self.requests_per_minute is None:
            return None
        burst = (1 - self.reserved_percent / 100) * self.requests_per_minute
        return max(0.0, self.requests - burst) / self.requests_per_minute * 60

    @property
    def time(self) -> str | None:
        """The minimum duration as text for messages. None if the rate limit is unknown."""
        if self.limit_seconds is None:
            return None
        limit = f"the rate limit of {self.requests_per_minute:,.0f} requests per minute"
        wait = self.limit_seconds
        return f"at least {_duration(wait)} at {limit}" if wait else f"all within {limit}"

    def __str__(self) -> str:
        """Return a summary such as "250 products in 3 pages, $0.04"."""
        text = f"{count(self.products, 'product')} in {count(self.requests, self.kind)}"
        if self.price_usd:
            text += f", ${self.cost_usd:,.2f}"
        return f"{text}, {self.time}" if self.time else text


def estimate_pages(
    product_counts: Iterable[int], page_size: int, service: Service, *, saved_pages: int = 0
) -> Estimate:
    """Estimate a read of whole catalogs, not counting pages that are already saved."""
    counts = list(product_counts)
    pages = sum(max(1, -(-products // page_size)) for products in counts)
    price = service.spending.prices.search_page_usd
    return _estimate(sum(counts), max(0, pages - saved_pages), "page", price, service)


def estimate_lookups(products: int, service: Service) -> Estimate:
    """Estimate looking up product details."""
    price = service.spending.prices.lookup_usd
    return _estimate(products, products, "lookup", price, service)


def _estimate(
    products: int, requests: int, kind: str, price_usd: float, service: Service
) -> Estimate:
    limit = service.spending.requests_per_minute
    return Estimate(products, requests, kind, price_usd, limit, service.limiter.reserved_percent)


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


class ValueCount(ResponseModel):
    """A facet value, and the number of products with this value."""

    value: str
    count: int = Field(ge=0)


class FacetCount(ResponseModel):
    """Product counts by facet value."""

    values: list[ValueCount]


class FacetCounts(ResponseModel):
    """The response of `POST /products/facet-counts` for a single facet."""

    facets: list[FacetCount] = Field(min_length=1, max_length=1)

    def products(self, filters: SearchFilters) -> int:
        """Return the total number of products in the categories that the search includes.

        The service ignores the search's category filters when it counts products by category.
        """
        wanted, unwanted = _categories(filters.facets), _categories(filters.exclude_facets)
        return sum(
            each.count
            for each in self.facets[0].values
            if (not wanted or each.value.casefold() in wanted)
            and each.value.casefold() not in unwanted
        )


def count_request(filters: SearchFilters, catalogs: Sequence[str] = ()) -> dict[str, Any]:
    """Return the body of a request that counts a search's products by top-level category.

    Keywords do not affect the counts, but the service can derive filters from keywords. Therefore
    the request includes keywords only if the search also derives filters.
    """
    if isinstance(catalogs, str):
        raise ValueError(
            f"`catalogs` must be a list, not the string {catalogs!r}. Pass [{catalogs!r}]."
        )
    body = {name: value for name, value in filters.as_json().items() if name in _FIELDS}
    if not filters.understand:
        body.pop("q", None)
    if catalogs:
        body["catalogs"] = list(catalogs)
    keys = body.get("catalogs", [])
    if len(keys) > MAX_CATALOGS:
        raise ValueError(
            f"`catalogs` has {len(keys):,} keys, but one request can count at most {MAX_CATALOGS} "
            "catalogs. Split the keys into several requests."
        )
    if not all(key.strip() for key in keys):
        raise ValueError("`catalogs` contains an empty key. Remove it.")
    return body | {"facet_names": [_CATEGORY], "value_limit": _MAX_CATEGORIES}


def _categories(facets: Iterable[Facet]) -> set[str]:
    return {
        value.casefold()
        for facet in facets
        if facet.name.lower() == _CATEGORY
        for value in facet.values
    }
