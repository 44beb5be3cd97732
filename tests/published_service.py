"""A service of the current generation whose answers are made from the published models."""

from __future__ import annotations

import json
import uuid
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from octogen_ai_sdk import models
from octogen_ai_sdk.generated import models as generated
from octogen_ai_sdk.generated.models import (
    BrandView,
    DomainCatalogCoverage,
    DomainCoverageResponse,
    DomainField,
    DomainFieldValue,
    MerchantProductListItem,
    MerchantProductUrlLookupResponse,
    MerchantProductView,
    ProgrammaticProductLookupRequest,
    ProgrammaticProductSearchEffectiveFacet,
    ProgrammaticProductSearchEffectiveQuery,
    ProgrammaticProductSearchPage,
    ProgrammaticProductSearchRequest,
)
from pydantic import BaseModel, ValidationError

from tests.api.servers import RawServer, Received, counted, http

JUDGES: dict[str, tuple[type[BaseModel], type[BaseModel]]] = {
    "/v1/products/search": (
        models.ProgrammaticProductSearchRequest,
        generated.ProgrammaticProductSearchRequest,
    ),
    "/v1/products/facet-counts": (
        models.ProgrammaticFacetCountsRequest,
        generated.ProgrammaticFacetCountsRequest,
    ),
    "/v1/products/lookup": (
        models.ProgrammaticProductLookupRequest,
        generated.ProgrammaticProductLookupRequest,
    ),
}
"""The published models of each request: the first has limits, the second is generated."""


def refusal_of(path: str, body: bytes | str) -> ValidationError | None:
    """Why one of the published models refuses a body; None if both take it."""
    for model in JUDGES.get(path, ()):
        try:
            model.model_validate_json(body)
        except ValidationError as error:
            return error
    return None


@dataclass
class PublishedService:
    """Searches and looks up in catalogs that a test may change; it has no list of them.

    It refuses what one of the published models of requests refuses. The only facet that it filters
    by is `brand_name`.

    Attributes:
        catalogs: The uuids of the products by catalog key. A key that is not here matches nothing.
        brands: The names of the brands of products; one that is not here has none.
        synonyms: The canonical values of the brands whose names in lower case are others.
        hosts: The catalogs that serve the host of a shop.
        counts: How many products with a category each catalog has; empty if it does not count.
        product_counts: How many the shops say, where it is not the true number.
        faults: How it breaks the logic of facets: it ignores "facets" or "exclude_facets", or it
            takes products without a brand as "excluded", as a database does that compares nulls.
        max_values: The most values of a facet.
        requests_per_minute: The rate limit that it names; None for no limiter.
        max_searches: After so many searches each answer is a 500.
        generated: The facets that an understood query generates, by name.
        shops_only: Addresses that only the shops know: a page can be read, no catalog has it.
        searches: The bodies of the searches that were answered with 200.
        lookups: The bodies of all lookups.
        received: All requests.
    """

    catalogs: dict[str, list[str]]
    generated: dict[str, list[str]] = field(default_factory=dict)
    shops_only: set[str] = field(default_factory=set)
    brands: dict[str, str] = field(default_factory=dict)
    synonyms: dict[str, str] = field(default_factory=dict)
    hosts: dict[str, list[str]] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    product_counts: dict[str, int] = field(default_factory=dict)
    faults: set[str] = field(default_factory=set)
    max_values: int | None = None
    requests_per_minute: int | None = None
    max_searches: int | None = None
    searches: list[dict[str, Any]] = field(default_factory=list)
    lookups: list[dict[str, Any]] = field(default_factory=list)
    received: list[Received] = field(default_factory=list)
    base_url: str = ""
    api_key: str = "octo_live_test"

    @contextmanager
    def running(self) -> Iterator[PublishedService]:
        """Serve on a free port while the block runs."""
        with RawServer(self._respond) as server:
            self.base_url, self.received = server.base_url, server.received
            yield self

    def _respond(self, request: Received) -> list[bytes]:
        if error := refusal_of(request.target, request.body):
            return http(422, refusal(error))
        match request.target:
            case "/v1/products/search":
                status, body = self.search(request.json)
                limit = self.requests_per_minute
                if limit is None:
                    return http(status, body)
                named = {"x_ratelimit_limit": str(limit), "x_ratelimit_remaining": str(limit)}
                return http(status, body, length=None, **named)
            case "/v1/products/lookup":
                return http(*self.lookup(request.json))
            case "/v1/products/facet-counts" if self.counts:
                if self._has_too_many_values(request.json):
                    return http(422, {"detail": "too_many_values"})
                return http(200, counted(sum(self.counts[key] for key in request.json["catalogs"])))
            case target if (host := target.removeprefix("/v1/domains/")) in self.hosts:
                return http(200, self.coverage(host))
            case _:
                return http(404, {"detail": "Not Found"})

    def search(self, body: dict[str, Any]) -> tuple[int, Any]:
        """Return the status and the body of the response to a search."""
        request = ProgrammaticProductSearchRequest.model_validate(body)
        filters = [*(request.facets or ()), *(request.exclude_facets or ())]
        if any(each.name != "brand_name" for each in filters):
            return 422, {"detail": "unknown_facet"}
        if self._has_too_many_values(body):
            return 422, {"detail": "too_many_values"}
        if len(self.searches) == self.max_searches:
            return 500, {"detail": "Internal Server Error"}
        self.searches.append(body)
        keys = self.catalogs if request.catalogs is None else request.catalogs
        products = [
            (key, each)
            for key in keys
            for each in self.catalogs.get(key, ())
            if self._matches(each, request)
        ]
        begin, limit = int(request.cursor or 0), request.limit or 50
        understood = bool(request.q) and request.understand is not False
        page = ProgrammaticProductSearchPage(
            items=[
                MerchantProductListItem(
                    uuid=each,
                    product_url=url_of(key, each),
                    catalog_key=key,
                    brand=BrandView(name=self.brands[each]) if each in self.brands else None,
                )
                for key, each in products[begin : begin + limit]
            ],
            next_cursor=str(begin + limit) if begin + limit < len(products) else None,
            request_id=str(uuid.uuid4()),
            effective_query=ProgrammaticProductSearchEffectiveQuery(
                text=request.q or "",
                understood=understood,
                catalogs=request.catalogs,
                facets=[
                    ProgrammaticProductSearchEffectiveFacet(
                        name=name, values=values, source="generated"
                    )
                    for name, values in (self.generated.items() if understood else ())
                ],
            ),
        )
        return 200, page.model_dump(mode="json", by_alias=True, exclude_none=True)

    def _has_too_many_values(self, body: dict[str, Any]) -> bool:
        filters = [*body.get("facets", ()), *body.get("exclude_facets", ())]
        return any(len(each["values"]) > (self.max_values or 10**6) for each in filters)

    def _matches(self, product: str, request: ProgrammaticProductSearchRequest) -> bool:
        facets = () if "facets" in self.faults else request.facets or ()
        excluded = () if "exclude_facets" in self.faults else request.exclude_facets or ()
        is_null = product not in self.brands
        if is_null and excluded and "excluded" in self.faults:
            return False
        is_in = [self._has_a_brand_of(product, each.values) for each in facets]
        return all(is_in) and not any(
            self._has_a_brand_of(product, each.values) for each in excluded
        )

    def _has_a_brand_of(self, product: str, names: Sequence[str]) -> bool:
        brand = self.brands.get(product)
        return brand is not None and self._canonical(brand) in map(self._canonical, names)

    def _canonical(self, name: str) -> str:
        return self.synonyms.get(name.lower(), name.lower())

    def coverage(self, host: str) -> dict[str, Any]:
        """Return the body of the response about the catalogs of a shop."""
        catalogs = []
        for key in self.hosts[host]:
            brands = Counter(
                self._canonical(self.brands[each])
                for each in self.catalogs[key]
                if each in self.brands
            )
            top = [
                DomainFieldValue(value=value, label=value.title(), count=count)
                for value, count in brands.most_common()
            ]
            field = DomainField(
                name="brand_name",
                display_name="Brand",
                source="brands",
                coverage=1.0,
                populated=brands.total(),
                distinct=len(brands),
                truncated=False,
                top_values=top,
            )
            catalogs.append(
                DomainCatalogCoverage(
                    catalog=key,
                    catalog_display_name=key,
                    product_count=self.product_counts.get(key, len(self.catalogs[key])),
                    computed_at="2026-11-25T10:00:00Z",
                    fields=[field],
                    price=None,
                )
            )
        response = DomainCoverageResponse(host=host, catalogs=catalogs)
        return response.model_dump(mode="json", by_alias=True, exclude_none=True)

    def lookup(self, body: dict[str, Any]) -> tuple[int, Any]:
        """Return the status and the body of the response to a lookup."""
        self.lookups.append(body)
        request = ProgrammaticProductLookupRequest.model_validate(body)
        url = request.url or ""
        indexed = {
            url_of(key, each): (key, each) for key in self.catalogs for each in self.catalogs[key]
        }
        match_by = [url] if request.match_mode == "strict" else [url, url.partition("?")[0]]
        hit = next((indexed[each] for each in match_by if each in indexed), None)
        if hit is not None:
            key, product_uuid = hit
            product = view(uuid=product_uuid, product_url=url_of(*hit), catalog_key=key)
            source = "indexed"
        elif url in self.shops_only and request.resolution_mode != "index_only":
            key, product, source = None, view(uuid=None, product_url=url), "on_demand"
        else:
            return 404, {"detail": "product_not_found"}
        response = MerchantProductUrlLookupResponse(
            catalog_key=key, product=product, source=source, requested_url=url, warnings=[]
        )
        return 200, response.model_dump(mode="json", by_alias=True, exclude_unset=True)


def url_of(catalog: str, product_uuid: str) -> str:
    """The address of a product."""
    return f"https://{catalog}.example/{product_uuid}"


def view(**fields: Any) -> MerchantProductView:
    """A product with nothing but a title and these fields."""
    return MerchantProductView(title="From the page", details=None, **fields)


def refusal(error: ValidationError) -> dict[str, Any]:
    """The body of a 422."""
    details = json.loads(error.json(include_url=False, include_context=False))
    return {"detail": [{**each, "loc": ["body", *each["loc"]]} for each in details]}
