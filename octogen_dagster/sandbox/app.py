"""The routes of the REST API. There is one router for each contract generation."""

from __future__ import annotations

import hmac
import uuid
import zlib
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from fastapi import APIRouter, Depends, FastAPI, HTTPException, Request, Response
from fastapi.encoders import jsonable_encoder
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse

from octogen_dagster.sandbox.catalog import Catalog
from octogen_dagster.sandbox.gateway import BASE_PATH, CREDIT_SPENT, Gateway
from octogen_dagster.sandbox.models import (
    CurrentFilters,
    CurrentLookupRequest,
    CurrentSearchRequest,
    Facet,
    FacetCountsRequest,
    SeedLookupRequest,
    SeedSearchRequest,
)
from octogen_dagster.sandbox.search import (
    Hit,
    count_facets,
    coverage,
    decode_cursor,
    encode_cursor,
    find_page,
)
from octogen_dagster.sandbox.state import ReceivedRequest, State
from octogen_dagster.sandbox.url_lists import UrlLists
from octogen_dagster.sandbox.views import (
    current_full_view,
    current_item,
    seed_full_view,
    seed_item,
)

Generation = Literal["seed", "current"]
Json = dict[str, Any]
SEARCH_PAGE_USD = 0.014
LOOKUP_USD = 0.002


def create_app(state: State, generation: Generation) -> FastAPI:
    """Create the ASGI app for a contract generation. The gateway receives its requests."""

    async def admit(request: Request) -> None:
        scheme, _, key = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not key.strip():
            raise HTTPException(401, "Authorization Bearer token required")
        if not hmac.compare_digest(key.strip().encode(), state.api_key.encode()):
            raise HTTPException(401, "Invalid API key")
        if not state.limiter.take():
            retry_after = str(state.limiter.retry_after)
            raise HTTPException(429, "rate_limit_exceeded", {"Retry-After": retry_after})

    app = FastAPI(openapi_url=None)
    router = _seed_router(state) if generation == "seed" else _current_router(state)
    app.include_router(router, prefix=BASE_PATH, dependencies=[Depends(admit)])
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_middleware(Gateway, state=state)
    return app


def _validation_error(request: Request, error: Exception) -> Response:
    """Return FastAPI's 422, even if the input cannot be encoded as JSON."""
    assert isinstance(error, RequestValidationError)
    detail = jsonable_encoder(error.errors())
    try:
        return JSONResponse({"detail": detail}, 422)
    except ValueError:  # NaN, or an unpaired surrogate, which JSON cannot encode
        return JSONResponse({"detail": [each | {"input": None} for each in detail]}, 422)


def _seed_router(state: State) -> APIRouter:
    router = APIRouter()

    @router.get("/catalogs")
    def catalogs() -> list[Json]:
        return [
            {
                "catalog": catalog.key,
                "displayName": catalog.shop.display_name,
                "sourceBaseUrl": catalog.source_base_url,
                "productCount": catalog.product_count,
                "lastIndexedAt": catalog.last_indexed_at,
            }
            for catalog in state.catalogs.all()
        ]

    @router.post("/products/search")
    def search(body: SeedSearchRequest, request: Request) -> Json:
        keys = None if body.catalog is None else [body.catalog]
        if keys is not None and not state.catalogs.known(keys):
            raise HTTPException(404, "catalog_not_found")
        hits, cursor = _page(state, body, keys, request.scope["received"])
        return {"items": [seed_item(hit.product) for hit in hits], "nextCursor": cursor}

    @router.post("/products/lookup")
    def lookup(body: SeedLookupRequest) -> Json:
        product = state.catalogs.find(body.url)
        if product is None:
            raise HTTPException(404, "product_not_found")
        _charge(state, LOOKUP_USD)
        return _envelope(product.catalog) | {"product": seed_full_view(product)}

    return router


def _current_router(state: State) -> APIRouter:
    router = APIRouter()

    @router.get("/me")
    def me() -> Json:
        return _principal(state)

    def shop(host: str) -> Json:
        name = host.strip().lower().partition(":")[0].rstrip(".").removeprefix("www.")
        found = [catalog for catalog in state.catalogs.all() if catalog.shop.domain == name]
        if not found:
            raise HTTPException(404, "domain_not_covered")
        found.sort(key=lambda catalog: catalog.key)
        return {"host": name, "catalogs": [coverage(each) for each in found]}

    for route in state.shop_routes:
        router.get(f"/{route}/{{host:path}}")(shop)

    @router.post("/products/search")
    def search(body: CurrentSearchRequest, request: Request) -> Json:
        received: ReceivedRequest = request.scope["received"]
        hits, cursor = _page(state, body, body.catalogs, received)
        page: Json = {
            "items": [current_item(hit.product, hit.relevance) for hit in hits],
            "requestId": received.request_id,
            "effectiveQuery": _effective_query(body),
        }
        if cursor is not None or _has_null_cursor(received):
            page["nextCursor"] = cursor
        return page

    @router.post("/products/facet-counts")
    def facet_counts(body: FacetCountsRequest) -> Json:
        counts = count_facets(body, state.catalogs.known(body.catalogs))
        return counts | {"effectiveQuery": _effective_query(body)}

    @router.post("/products/lookup")
    def lookup(body: CurrentLookupRequest, request: Request) -> Json:
        """Find a product in the index. The sandbox never fetches products from shops."""
        product, matched_via = state.catalogs.find(body.url), "exact"
        if product is None and body.matchMode != "strict":
            url = body.url.partition("?")[0].lower()
            product, matched_via = state.catalogs.find(url), "loose"
        if product is None or body.resolutionMode == "on_demand_only":
            raise HTTPException(404, "product_not_found")
        _charge(state, LOOKUP_USD)
        unknown = ("resolvedUrl", "canonicalUrl", "resolution", "cacheStatus", "warnings")
        return {
            **_envelope(product.catalog),
            "product": current_full_view(product),
            "source": "indexed",
            "requestId": request.scope["received"].request_id,
            "requestedUrl": body.url,
            "normalizedUrl": product.url,
            "matchedVia": matched_via,
            **dict.fromkeys(unknown),
        }

    router.include_router(_url_list_router(state.url_lists), prefix="/coverage/url-lists")
    return router


def _principal(state: State) -> Json:
    """Describe the API key, its organization and its rate limit."""
    parts, limiter = state.api_key.split("_"), state.limiter
    key_id = parts[2] if len(parts) > 3 else str(uuid.uuid5(uuid.NAMESPACE_OID, state.api_key))
    reset_at = datetime.now(UTC) + timedelta(seconds=limiter.seconds_to_full)
    return {
        "principal": "api_key",
        "key": {"id": key_id, "prefix": f"octo_live_{key_id[:10]}"},
        "organization": {
            "id": str(uuid.uuid5(uuid.NAMESPACE_OID, "sandbox")),
            "name": "Sandbox",
            "slug": "sandbox",
            "type": "catalog_partner",
        },
        "quotas": {},
        "rateLimit": {
            "limit": limiter.size,
            "remaining": limiter.remaining,
            "resetAt": reset_at.isoformat(),
        },
    }


def _url_list_router(lists: UrlLists) -> APIRouter:
    """Return the routes for URL lists. FastAPI calls the methods of `lists`."""
    router = APIRouter()
    router.post("", status_code=201)(lists.create)
    router.get("")(lists.page)
    router.get("/{list_id}")(lists.get)
    router.delete("/{list_id}", status_code=202)(lists.delete)
    router.post("/{list_id}/urls")(lists.add)
    router.post("/{list_id}/urls/remove")(lists.remove)
    router.post("/{list_id}/urls/contains")(lists.contains)
    router.get("/{list_id}/urls")(lists.members)
    return router


def _page(
    state: State,
    body: SeedSearchRequest | CurrentSearchRequest,
    keys: Sequence[str] | None,
    received: ReceivedRequest,
) -> tuple[list[Hit], str | None]:
    """Charge for a page. Return the hits on the page and the cursor of the next page."""
    sent = received.body or {}
    start = decode_cursor(body.cursor, sent)
    hits, following = find_page(body, state.catalogs.known(keys), start, body.limit)
    _charge(state, SEARCH_PAGE_USD)
    return hits, following and encode_cursor(following, sent)


def _charge(state: State, usd: float) -> None:
    if not state.account.charge(usd):
        raise HTTPException(402, CREDIT_SPENT | {"balance_usd": state.account.balance_usd})


def _has_null_cursor(received: ReceivedRequest) -> bool:
    """Return True for every second search.

    Its last page has a null cursor; other last pages have no cursor.
    """
    return zlib.crc32(repr(received.body).encode()) % 2 == 0


def _effective_query(body: CurrentFilters) -> Json:
    def sent(facets: Sequence[Facet] | None) -> list[Json]:
        return [{**facet.model_dump(), "source": "caller"} for facet in facets or ()]

    return {
        "text": body.keywords,
        "understood": False,
        "catalogs": body.catalogs and list(dict.fromkeys(body.catalogs)),
        "facets": sent(body.facets),
        "excludeFacets": sent(body.exclude_facets),
        "priceMin": body.price_min,
        "priceMax": body.price_max,
        "brandQualityMin": body.brand_quality_min,
        "brandQualityMax": body.brand_quality_max,
        "similarToBrands": getattr(body, "similar_to_brands", None),
        "relaxation": None,
    }


def _envelope(catalog: Catalog) -> Json:
    return {
        "catalogKey": catalog.key,
        "catalogDisplayName": catalog.shop.display_name,
        "sourceBaseUrl": catalog.source_base_url,
    }
