"""A service of the current generation whose answers are made from the published models."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from octogen_ai_sdk.generated.models import (
    MerchantProductListItem,
    MerchantProductUrlLookupResponse,
    MerchantProductView,
    ProgrammaticProductLookupRequest,
    ProgrammaticProductSearchEffectiveFacet,
    ProgrammaticProductSearchEffectiveQuery,
    ProgrammaticProductSearchPage,
    ProgrammaticProductSearchRequest,
)
from pydantic import ValidationError

from tests.api.servers import RawServer, Received, http


@dataclass
class PublishedService:
    """Searches and looks up in catalogs that a test may change; it has no list of them.

    Attributes:
        catalogs: The uuids of the products by catalog key. A key that is not here matches nothing.
        generated: The facets that an understood query generates, by name.
        shops_only: Addresses that only the shops know: a page can be read, no catalog has it.
        searches: The bodies of the searches that were answered with 200.
        lookups: The bodies of all lookups.
    """

    catalogs: dict[str, list[str]]
    generated: dict[str, list[str]] = field(default_factory=dict)
    shops_only: set[str] = field(default_factory=set)
    searches: list[dict[str, Any]] = field(default_factory=list)
    lookups: list[dict[str, Any]] = field(default_factory=list)
    base_url: str = ""

    @contextmanager
    def running(self) -> Iterator[PublishedService]:
        """Serve on a free port while the block runs."""
        with RawServer(self._respond) as server:
            self.base_url = server.base_url
            yield self

    def _respond(self, request: Received) -> list[bytes]:
        match request.target:
            case "/v1/products/search":
                return http(*self.search(request.json))
            case "/v1/products/lookup":
                return http(*self.lookup(request.json))
            case _:
                return http(404, {"detail": "Not Found"})

    def search(self, body: dict[str, Any]) -> tuple[int, Any]:
        """Return the status and the body of the response to a search."""
        try:
            request = ProgrammaticProductSearchRequest.model_validate(body)
        except ValidationError as error:
            return 422, refusal(error)
        self.searches.append(body)
        keys = self.catalogs if request.catalogs is None else request.catalogs
        products = [(key, each) for key in keys for each in self.catalogs.get(key, ())]
        begin, limit = int(request.cursor or 0), request.limit or 50
        understood = bool(request.q) and request.understand is not False
        page = ProgrammaticProductSearchPage(
            items=[
                MerchantProductListItem(uuid=each, product_url=url_of(key, each), catalog_key=key)
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

    def lookup(self, body: dict[str, Any]) -> tuple[int, Any]:
        """Return the status and the body of the response to a lookup."""
        self.lookups.append(body)
        try:
            request = ProgrammaticProductLookupRequest.model_validate(body)
        except ValidationError as error:
            return 422, refusal(error)
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
