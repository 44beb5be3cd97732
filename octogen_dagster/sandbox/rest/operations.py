"""The operations of the REST API, from JSON to JSON. They know no HTTP."""

from collections.abc import Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import from_json

from octogen_dagster.sandbox.data.catalog import Catalog
from octogen_dagster.sandbox.rest.cursors import Cursors, Position
from octogen_dagster.sandbox.rest.grants import CatalogGrants
from octogen_dagster.sandbox.rest.request_bodies import (
    LOOKUP_REQUESTS,
    SEARCH_REQUESTS,
    Generation,
    SearchRequest,
    refusal_details,
)
from octogen_dagster.sandbox.rest.search import find_page
from octogen_dagster.sandbox.rest.views import (
    Json,
    catalog_summary,
    list_item,
    lookup_extras,
    lookup_result,
    page_extras,
)

_Body = TypeVar("_Body", bound=BaseModel)


class ApiError(Exception):
    """A response that is an error.

    Args:
        status: The HTTP status.
        detail: The `detail` of the body.
        headers: Headers beyond those of every response.
    """

    def __init__(self, status: int, detail: Any, headers: dict[str, str] | None = None) -> None:
        super().__init__(status, detail)
        self.status = status
        self.detail = detail
        self.headers = headers or {}


class Operations:
    """The operations of one generation of the API.

    Args:
        generation: The contract.
        grants: The catalogs.
        cursors: The cursors of this server.
    """

    def __init__(self, generation: Generation, grants: CatalogGrants, cursors: Cursors) -> None:
        self.generation = generation
        self._grants = grants
        self._cursors = cursors

    def list_catalogs(self) -> list[Json]:
        """Return the granted catalogs."""
        return [catalog_summary(catalog) for catalog in self._grants.select()]

    def lookup(self, body: bytes, request_id: str) -> Json:
        """Return the product with a URL.

        Raises:
            ApiError: The body is not valid, or there is no such product.
        """
        url = _validated(LOOKUP_REQUESTS[self.generation], body).url
        for catalog in self._grants.select():
            product = catalog.find(url)
            if product is not None:
                extras = lookup_extras(request_id) if self.generation == "current" else {}
                return lookup_result(product, self.generation) | extras
        raise ApiError(404, "product_not_found")

    def search(self, body: bytes, request_id: str, restart: bool = False) -> Json:
        """Return a page of a search.

        Args:
            body: The request body.
            request_id: The id of the request.
            restart: True to return page 1 whatever the cursor is.

        Raises:
            ApiError: The body is not valid, or a catalog is not granted.
        """
        request = _validated(SEARCH_REQUESTS[self.generation], body)
        catalogs = self._select(request.catalog_keys)
        start = None if restart else self._decode(request)
        hits, continues_at = find_page(request, catalogs, start)
        page: Json = {
            "items": [list_item(hit.product, self.generation, hit.relevance) for hit in hits]
        }
        if continues_at is not None:
            page["nextCursor"] = self._cursors.encode(continues_at, request.fingerprint())
        elif self.generation == "seed":
            page["nextCursor"] = None
        if self.generation == "current":
            page |= page_extras(request, request_id)
        return page

    def start_of_page(self, body: bytes) -> Position | None:
        """Return the position in the cursor of a search; None without a valid cursor."""
        try:
            return self._decode(_validated(SEARCH_REQUESTS[self.generation], body))
        except ApiError:
            return None

    def _decode(self, request: SearchRequest) -> Position | None:
        return self._cursors.decode(request.cursor or "", request.fingerprint())

    def _select(self, keys: Sequence[str] | None) -> list[Catalog]:
        try:
            return self._grants.select(keys)
        except LookupError:
            raise ApiError(404, "catalog_not_found") from None


def _validated(model: type[_Body], body: bytes) -> _Body:
    try:
        return model.model_validate(from_json(body, allow_inf_nan=False))
    except ValidationError as error:
        raise ApiError(422, refusal_details(error)) from None
    except ValueError as error:
        problem = {"loc": ["body"], "msg": "JSON decode error", "type": "json_invalid"}
        raise ApiError(422, [{**problem, "input": {}, "ctx": {"error": str(error)}}]) from None
