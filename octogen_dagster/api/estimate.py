"""Estimate: what a read takes in requests, dollars and time, before it begins. No I/O.

Whole catalogs are counted by their source. The products of a search are counted by the service, by
top-level category, since it has no other count; a sum of these misses products without a category.
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
    """The requests, dollars and time of a read."""

    products: int
    requests: int  # that are charged
    kind: str  # of these requests, as a singular noun
    price_usd: float  # of each; 0 if costs are not shown
    requests_per_minute: float | None  # the rate limit, if it is known
    reserved_percent: float  # of its bucket, which are left to other users

    @property
    def cost_usd(self) -> Decimal:
        """Dollars for all requests."""
        return dollars(self.price_usd) * self.requests

    @property
    def limit_seconds(self) -> float | None:
        """The shortest time that the rate limit allows; None if the limit is not known.

        The bucket holds the requests of a minute. It is taken as full when the read begins.
        """
        if self.requests_per_minute is None:
            return None
        at_once = (1 - self.reserved_percent / 100) * self.requests_per_minute
        return max(0.0, self.requests - at_once) / self.requests_per_minute * 60

    @property
    def time(self) -> str | None:
        """The shortest time, such as "at least 3 min at …"; None if the limit is not known."""
        if self.limit_seconds is None:
            return None
        limit = f"the rate limit of {self.requests_per_minute:,.0f} requests a minute"
        wait = self.limit_seconds
        return f"at least {_duration(wait)} at {limit}" if wait else f"all within {limit}"

    def __str__(self) -> str:
        """Return all that is known, such as "250 products in 3 pages, $0.04"."""
        text = f"{count(self.products, 'product')} in {count(self.requests, self.kind)}"
        if self.price_usd:
            text += f", ${self.cost_usd:,.2f}"
        return f"{text}, {self.time}" if self.time else text


def estimate_pages(
    product_counts: Iterable[int], page_size: int, service: Service, *, saved_pages: int = 0
) -> Estimate:
    """Estimate a read of whole catalogs, whose saved pages need not be requested."""
    counts = list(product_counts)
    pages = sum(max(1, -(-products // page_size)) for products in counts)
    price = service.spending.prices.search_page_usd
    return _estimate(sum(counts), max(0, pages - saved_pages), "page", price, service)


def estimate_lookups(products: int, service: Service) -> Estimate:
    """Estimate a read of the details of products."""
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
    """The number of products that have a value of a facet."""

    value: str
    count: int = Field(ge=0)


class FacetCount(ResponseModel):
    """The numbers of products by the values of a facet."""

    values: list[ValueCount]


class FacetCounts(ResponseModel):
    """The answer to `count_request`, which has one facet."""

    facets: list[FacetCount] = Field(min_length=1, max_length=1)

    def products(self, filters: SearchFilters) -> int:
        """Add up the products of all categories that the search does not leave out.

        The service counts without the caller's own filter by the facet that it counts.
        """
        wanted, unwanted = _categories(filters.facets), _categories(filters.exclude_facets)
        return sum(
            each.count
            for each in self.facets[0].values
            if (not wanted or each.value.casefold() in wanted)
            and each.value.casefold() not in unwanted
        )


def count_request(filters: SearchFilters, catalogs: Sequence[str] = ()) -> dict[str, Any]:
    """Return the body of `POST /products/facet-counts` that counts the top-level categories.

    Filters are derived from the keywords of such a request, so it has them only if the search
    derives them too. The text itself narrows no count.
    """
    if isinstance(catalogs, str):
        raise ValueError(
            f"catalogs must be a list, not the string {catalogs!r}. Pass [{catalogs!r}]."
        )
    body = {name: value for name, value in filters.as_json().items() if name in _FIELDS}
    if not filters.understand:
        body.pop("q", None)
    if catalogs:
        body["catalogs"] = list(catalogs)
    keys = body.get("catalogs", [])
    if len(keys) > MAX_CATALOGS:
        raise ValueError(
            f"catalogs has {len(keys):,} keys, and one request counts the products of at most "
            f"{MAX_CATALOGS}: count them in parts"
        )
    if not all(key.strip() for key in keys):
        raise ValueError("catalogs has an empty key: remove it")
    return body | {"facet_names": [_CATEGORY], "value_limit": _MAX_CATEGORIES}


def _categories(facets: Iterable[Facet]) -> set[str]:
    return {
        value.casefold()
        for facet in facets
        if facet.name.lower() == _CATEGORY
        for value in facet.values
    }
