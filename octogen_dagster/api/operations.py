"""Sans-I/O request flows: searches, lookups, catalogs, shops and product counts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from octogen_dagster.api.estimate import FacetCounts, count_request
from octogen_dagster.api.flow import Flow, T, Wait, request_flow
from octogen_dagster.api.http import Response
from octogen_dagster.api.models import (
    DomainCoverageResponse,
    MerchantCatalogSummary,
    MerchantProductListPage,
    MerchantProductUrlLookupResponse,
    MeResponse,
)
from octogen_dagster.api.responses import lacks_version, parsed, refused_fields
from octogen_dagster.api.search import CURRENT_FIELDS
from octogen_dagster.errors import OctogenNotFoundError, OctogenValidationError
from octogen_dagster.printable import printable

if TYPE_CHECKING:
    from octogen_dagster.api.search import SearchFilters, SearchRequest
    from octogen_dagster.api.service import Service

CATALOGS = "The list of catalogs"
_RESPELLED = frozenset({"catalog", "understand"})
_UNKNOWN = "extra_forbidden"
"""The 422 error type for unknown fields."""
_SHOP_PATHS = ("/domains", "/stores")
_shop_path_of: dict[str, str] = {}
"""Maps base URLs to the shop lookup path that worked in this process."""
_LOOKUP_OPTIONS = {"resolutionMode": "index_only", "matchMode": "strict"}


def search_flow(
    service: Service, body: Mapping[str, Any], subject: str, *, paced: bool = False
) -> Flow[Response]:
    """Request one search page, with the fields that the service's API contract expects.

    The older contract ("seed") expects one key as `catalog`. The current contract expects a list as
    `catalogs`. The older contract rejects `understand` and never interprets keywords. The current
    contract interprets keywords unless `understand` is false. A search is first sent with `catalog`
    and `understand`. If a 422 rejects `catalog`, this and later requests use `catalogs`. If a 422
    rejects `understand=False`, this and later requests omit `understand`. A 422 is not charged.
    """
    flow = _search(service, body, subject, paced=paced)
    return (yield from _once_learned(service, "search", flow) if paced else flow)


def _search(
    service: Service, body: Mapping[str, Any], subject: str, *, paced: bool
) -> Flow[Response]:
    refused = service.refused.get("search", frozenset())
    spelled = _spelled(body, refused)
    tried: list[dict[str, Any]] = []
    while True:
        tried.append(spelled)
        try:
            response = yield from request_flow(
                service, "POST", "/products/search", subject, spelled, paced=paced
            )
        except OctogenValidationError as error:
            named = refused_fields(error.detail)
            # A service that rejects `catalog` has the current contract. If it was upgraded
            # from the older contract, earlier rejections no longer apply.
            refused = frozenset({"catalog"}) if "catalog" in named else refused | named
            spelled = _spelled(body, refused)
            # Two rejections that undo each other would otherwise loop forever.
            if spelled in tried:
                raise _explained(error, subject) from None
        else:
            service.refused["search"] = refused & _RESPELLED
            return response


def page_flow(service: Service, request: SearchRequest) -> Flow[MerchantProductListPage]:
    """Read one page of a search."""
    subject = search_subject(request)
    return parsed_page((yield from search_flow(service, request.body(), subject)), subject)


def search_subject(request: SearchRequest) -> str:
    """Return a search's name for messages, such as "Catalog 'acme'"."""
    return f"Catalog {request.catalog!r}" if request.catalog else "The search of all catalogs"


def parsed_page(response: Response, subject: str) -> MerchantProductListPage:
    return parsed(MerchantProductListPage, response, subject)


def parsed_lookup(response: Response, subject: str) -> MerchantProductUrlLookupResponse:
    return parsed(MerchantProductUrlLookupResponse, response, subject)


def product_flow(service: Service, url: str) -> Flow[MerchantProductUrlLookupResponse]:
    """Look up the product at a merchant's URL."""
    return (yield from lookup_flow(service, url, parsed_lookup))


def lookup_flow(
    service: Service, url: str, read: Callable[[Response, str], T], *, paced: bool = False
) -> Flow[T]:
    """Look up a product URL in Octogen's index. `read` parses the response.

    By default, a service with the current contract scrapes products that are not in the index. The
    service also matches URLs loosely, so a removed variant resolves to another variant. Two fields
    in the request turn off scraping and loose matching. A service with the older contract might
    reject these fields with a 422. After such a 422, this and later lookups omit the fields. A 422
    is not charged.
    """
    if not url.strip():
        raise ValueError("`url` is empty. Pass the product's URL.")
    subject = f"The product at {printable(url)}"
    flow = _lookup(service, url, subject, paced=paced)
    response = yield from _once_learned(service, "lookup", flow) if paced else flow
    return read(response, subject)


def _lookup(service: Service, url: str, subject: str, *, paced: bool) -> Flow[Response]:
    while True:
        refused = service.refused.get("lookup", frozenset())
        options = {name: value for name, value in _LOOKUP_OPTIONS.items() if name not in refused}
        try:
            response = yield from request_flow(
                service, "POST", "/products/lookup", subject, {"url": url, **options}, paced=paced
            )
        except OctogenValidationError as error:
            named = refused_fields(error.detail) & options.keys()
            if not named:
                raise
            service.refused["lookup"] = refused | named
        else:
            service.refused["lookup"] = refused
            return response


def _once_learned(service: Service, operation: str, flow: Flow[T]) -> Flow[T]:
    """Delay concurrent requests until the first response shows which fields the service rejects.

    Otherwise, all concurrent requests would be rejected because of the same field.
    """
    if operation in service.refused:
        return (yield from flow)
    own: Future[None] = Future()
    first = service.refused.learning.setdefault(operation, own)
    if first is not own:
        while not first.done():
            yield Wait(float("inf"), "first request", until=first)
        return (yield from flow)
    try:
        return (yield from flow)
    finally:
        # Release the others even if the first request failed.
        service.refused.setdefault(operation, frozenset())
        own.set_result(None)


def list_catalogs_flow(service: Service) -> Flow[list[MerchantCatalogSummary]]:
    """List the catalogs granted to the API key."""
    return parsed(list[MerchantCatalogSummary], (yield from catalogs_flow(service)), CATALOGS)


def catalogs_flow(service: Service) -> Flow[Response]:
    """Request the catalogs granted to the API key."""
    try:
        return (yield from request_flow(service, "GET", "/catalogs", CATALOGS))
    except OctogenNotFoundError as error:
        if lacks_version(service.base_url):
            raise
        raise error.with_message(
            f"{CATALOGS} is not available at {service.base_url} (404), because the service no "
            "longer lists catalogs. Set OctogenResource(catalog_source=ShopCatalogs(hosts=[...])) "
            "or OctogenResource(catalog_source=NamedCatalogs(keys=[...])), or pass catalog keys in "
            "ProductSearch(catalogs=[...])."
        ) from None


def me_flow(service: Service) -> Flow[MeResponse]:
    """Get the API key's organization and rate limit."""
    subject = "The account of the API key"
    return parsed(MeResponse, (yield from request_flow(service, "GET", "/me", subject)), subject)


def domain_flow(
    service: Service, host: str, *, paced: bool = False
) -> Flow[DomainCoverageResponse]:
    """Get the catalogs for a shop's host.

    The path is `/domains/{host}`, or `/stores/{domain}` in newer services. The path that worked is
    remembered for this process.
    """
    if not host.strip():
        raise ValueError("`host` is empty. Pass a host such as 'shop.example'.")
    subject = f"Shop {host!r}"
    known = shop_path(service.base_url)
    for path in sorted(_SHOP_PATHS, key=lambda path: path != known):
        url = f"{path}/{quote(host.strip(), safe='')}"
        try:
            response = yield from request_flow(service, "GET", url, subject, paced=paced)
        except OctogenNotFoundError as error:
            if lacks_version(service.base_url):
                raise
            if error.detail == "domain_not_covered":
                _shop_path_of[service.base_url] = path
                raise
            missing = error
        else:
            shop = parsed(DomainCoverageResponse, response, subject)
            _shop_path_of[service.base_url] = path
            return shop
    raise missing.with_message(
        f"{subject} cannot be looked up, because {service.base_url} does not support shop lookups "
        "(404). Use GrantedCatalogs() if the service lists catalogs. Otherwise, use "
        "NamedCatalogs(keys=[...])."
    ) from None


def shop_path(base_url: str) -> str | None:
    """Return the service's path for shop lookups, or None if it is not known yet."""
    return _shop_path_of.get(base_url)


def count_flow(service: Service, filters: SearchFilters, catalogs: Sequence[str] = ()) -> Flow[int]:
    """Count the products that match a search's filters.

    The request is free. The count is a lower bound.
    """
    subject, path = "The count of products", "/products/facet-counts"
    body = count_request(filters, catalogs)
    try:
        response = yield from request_flow(service, "POST", path, subject, body)
    except OctogenNotFoundError as error:
        if lacks_version(service.base_url):
            raise
        raise error.with_message(
            f"{subject} is not available, because {service.base_url} cannot count the products in "
            "a search (404). With the older API contract, only whole catalogs can be counted. "
            "Remove the filters."
        ) from None
    return parsed(FacetCounts, response, subject).products(filters)


def _spelled(body: Mapping[str, Any], refused: frozenset[str]) -> dict[str, Any]:
    """Send `catalogs` for a rejected `catalog`, and omit a rejected `understand=False`."""
    spelled = dict(body)
    if "catalog" in refused and "catalog" in spelled:
        spelled["catalogs"] = [spelled.pop("catalog")]
    if "understand" in refused and spelled.get("understand") is False:
        del spelled["understand"]
    return spelled


def _explained(error: OctogenValidationError, subject: str) -> OctogenValidationError:
    """Explain a 422 from a service with the older API contract. Return other errors unchanged."""
    entries = error.detail if isinstance(error.detail, list) else ()
    unknown = refused_fields(
        [each for each in entries if isinstance(each, dict) and each.get("type") == _UNKNOWN]
    )
    names = ", ".join(name for name in CURRENT_FIELDS if name in unknown)
    if not names:
        return error
    return error.with_message(
        f"{subject} failed: the service uses the older API contract, which does not support "
        f"{names} (422). Remove these fields, or use a service with the current API contract."
    )
