"""Product lookups, in the catalogs and, in the current generation, at the shops themselves."""

from collections.abc import Iterable, Sequence
from typing import Any

from octogen_dagster.sandbox.data.catalog import Catalog
from octogen_dagster.sandbox.data.product import Product
from octogen_dagster.sandbox.rest.full_views import Json, full_view
from octogen_dagster.sandbox.rest.product_urls import ProductUrl, parse_product_url
from octogen_dagster.sandbox.rest.request_bodies import CurrentLookupRequest, Generation

_NOT_INDEXED: dict[str, Any] = {
    "uuid": None,
    "catalogKey": None,
    "isActive": None,
    "enrichment": None,
    "primaryImage": None,
    "displayMatchScore": None,
    "rawScore": None,
}
"""What an on-demand result does not know of a product."""


def lookup_in_catalogs(
    url: str, catalogs: Iterable[Catalog], generation: Generation
) -> Json | None:
    """Return the product with exactly this URL as the older generations do; None without one."""
    product = _first(catalog.find(url) for catalog in catalogs)
    return None if product is None else _envelope(product, generation)


class CurrentLookups:
    """Lookups of the current generation.

    It remembers the addresses that it has fetched, as the service's cache does.
    """

    def __init__(self) -> None:
        self._fetched: set[str] = set()

    def lookup(
        self,
        request: CurrentLookupRequest,
        catalogs: Sequence[Catalog],
        shops: Sequence[Catalog],
        request_id: str,
    ) -> Json | None:
        """Return the product with a URL; None if it is not in the index and may not be fetched.

        Args:
            request: The lookup.
            catalogs: The catalogs of the index.
            shops: All shops, whose products may have left the index.
            request_id: The id of the request.

        Raises:
            InvalidUrlError: The URL is not looked up.
        """
        url = parse_product_url(request.url)
        if request.resolutionMode != "on_demand_only":
            found = _find_indexed(request, url, catalogs)
            if found is not None:
                return found | {"requestId": request_id, "requestedUrl": request.url}
        if request.resolutionMode == "index_only":
            return None
        fetched = self._fetch(request, url, shops)
        return fetched | {"requestId": request_id, "requestedUrl": request.url}

    def _fetch(
        self, request: CurrentLookupRequest, url: ProductUrl, shops: Sequence[Catalog]
    ) -> Json:
        address = url.normalized
        is_cached = address in self._fetched
        self._fetched.add(address)
        policy = request.onDemandCachePolicy
        product = _first(
            shop.find_in_shop(address) for address in (request.url, url.canonical) for shop in shops
        )
        view = _minimal_view(url) if product is None else full_view(product, "current")
        return {
            "catalogKey": None,
            "catalogDisplayName": None,
            "sourceBaseUrl": None,
            "source": "on_demand",
            "normalizedUrl": address,
            "resolvedUrl": url.canonical,
            "canonicalUrl": url.canonical,
            "cacheStatus": "refresh" if policy == "refresh" else "hit" if is_cached else "miss",
            "resolution": {
                "method": "json_ld",
                "completeness": "partial",
                "missingFields": [name for name in ("currentPrice", "brand") if not view.get(name)],
                "rendered": False,
            },
            "warnings": [] if view.get("currency") else ["price_currency_missing"],
            "product": view | _NOT_INDEXED,
        }


def _find_indexed(
    request: CurrentLookupRequest, url: ProductUrl, catalogs: Sequence[Catalog]
) -> Json | None:
    probes = [("exact", [request.url]), ("normalized_exact", [url.canonical])]
    if request.matchMode != "strict":
        probes.append(("loose", url.loose_candidates()))
    for matched_via, addresses in probes:
        product = _first(catalog.find(a) for a in addresses for catalog in catalogs)
        if product is not None:
            return _envelope(product, "current") | {
                "source": "indexed",
                "normalizedUrl": parse_product_url(product.url).normalized,
                "resolvedUrl": None,
                "canonicalUrl": None,
                "matchedVia": matched_via,
                "resolution": None,
                "cacheStatus": None,
                "warnings": None,
            }
    return None


def _first(found: Iterable[Product | None]) -> Product | None:
    return next((product for product in found if product is not None), None)


def _envelope(product: Product, generation: Generation) -> Json:
    catalog = product.catalog
    return {
        "catalogKey": catalog.key,
        "catalogDisplayName": catalog.display_name,
        "sourceBaseUrl": catalog.source_base_url,
        "product": full_view(product, generation),
    }


def _minimal_view(url: ProductUrl) -> Json:
    """Return what a page of an unknown shop says about its product."""
    words = url.path.rstrip("/").rpartition("/")[2].replace("-", " ").strip()
    return {"productUrl": url.canonical, "title": words or None, "images": []}
