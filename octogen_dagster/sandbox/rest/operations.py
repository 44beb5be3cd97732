"""The operations of the REST API, from JSON to JSON. They know no HTTP."""

import zlib
from typing import Any, TypeVar

from pydantic import BaseModel

from octogen_dagster.sandbox.data.catalog import Catalog
from octogen_dagster.sandbox.rest.cursors import Cursors, Position
from octogen_dagster.sandbox.rest.domains import domain_coverage
from octogen_dagster.sandbox.rest.effective_query import EffectiveQuery
from octogen_dagster.sandbox.rest.facet_counts import count_facets
from octogen_dagster.sandbox.rest.grants import CatalogGrants
from octogen_dagster.sandbox.rest.lookups import CurrentLookups, lookup_in_catalogs
from octogen_dagster.sandbox.rest.product_urls import InvalidUrlError, normalized_host
from octogen_dagster.sandbox.rest.request_bodies import (
    SEARCH_REQUESTS,
    CurrentLookupRequest,
    FacetCountsRequest,
    Generation,
    RefusedBodyError,
    SearchRequest,
    SeedLookupRequest,
    SeedSearchRequest,
    parse_body,
)
from octogen_dagster.sandbox.rest.search import Page, find_page
from octogen_dagster.sandbox.rest.understanding import Understanding, iter_relaxed
from octogen_dagster.sandbox.rest.views import (
    Json,
    catalog_summary,
    effective_query_view,
    list_item,
)

_BodyT = TypeVar("_BodyT", bound=BaseModel)


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
        understanding: The query understanding of the current generation.
    """

    def __init__(
        self,
        generation: Generation,
        grants: CatalogGrants,
        cursors: Cursors,
        understanding: Understanding,
    ) -> None:
        self.generation = generation
        self._grants = grants
        self._cursors = cursors
        self._understanding = understanding
        self._current_lookups = CurrentLookups()

    def list_catalogs(self) -> list[Json]:
        """Return the granted catalogs."""
        return [catalog_summary(catalog) for catalog in self._grants.select()]

    def domain(self, host: str) -> Json:
        """Return the catalogs of a shop's host.

        Raises:
            ApiError: No catalog serves the host.
        """
        host = normalized_host(host)
        catalogs = [catalog for catalog in self._grants.select() if catalog.domain == host]
        if not catalogs:
            raise ApiError(404, "domain_not_covered")
        return domain_coverage(host, catalogs)

    def lookup(self, body: bytes, request_id: str) -> Json:
        """Return the product with a URL.

        Raises:
            ApiError: The body is not valid, or there is no such product.
        """
        catalogs = self._grants.select()
        if self.generation == "current":
            request = _parsed(CurrentLookupRequest, body)
            try:
                found = self._current_lookups.lookup(
                    request, catalogs, self._grants.shops(), request_id
                )
            except InvalidUrlError as error:
                raise ApiError(422, str(error)) from None
        else:
            url = _parsed(SeedLookupRequest, body).url
            found = lookup_in_catalogs(url, catalogs, self.generation)
        if found is None:
            raise ApiError(404, "product_not_found")
        return found

    def count_facets(self, body: bytes) -> Json:
        """Return numbers of products.

        Raises:
            ApiError: The body is not valid.
        """
        request = _parsed(FacetCountsRequest, body)
        query = self._understanding.effective_query(request)
        return count_facets(request, query, self._grants.known(request.catalog_keys))

    def search(self, body: bytes, request_id: str, restart: bool = False) -> Json:
        """Return a page of a search.

        Args:
            body: The request body.
            request_id: The id of the request.
            restart: True to return page 1 whatever the cursor is.

        Raises:
            ApiError: The body is not valid, or the catalog of an older generation is not granted.
        """
        request = _parsed(SEARCH_REQUESTS[self.generation], body)
        catalogs = self._catalogs(request)
        start = None if restart else self._decode(request)
        query = self._query(request, start)
        found = find_page(query, catalogs, start, request.limit)
        if start is None and not found.hits:
            query, found = self._relaxed(query, found, catalogs, request.limit)
        page: Json = {
            "items": [list_item(hit.product, self.generation, hit.relevance) for hit in found.hits]
        }
        if found.continues_at is not None:
            memory = query.model_dump_json() if query.understood else ""
            following = found.continues_at._replace(query=memory)
            page["nextCursor"] = self._cursors.encode(following, request.fingerprint())
        elif self.generation == "seed" or _has_null_cursor(request):
            page["nextCursor"] = None
        if self.generation == "current":
            page |= {"requestId": request_id, "effectiveQuery": effective_query_view(query)}
        return page

    def start_of_page(self, body: bytes) -> Position | None:
        """Return the position in the cursor of a search; None without a valid cursor."""
        try:
            return self._decode(_parsed(SEARCH_REQUESTS[self.generation], body))
        except ApiError:
            return None

    def _decode(self, request: SearchRequest) -> Position | None:
        return self._cursors.decode(request.cursor or "", request.fingerprint())

    def _query(self, request: SearchRequest, start: Position | None) -> EffectiveQuery:
        """Return what page 1 searched for on later pages, and what is understood now on page 1."""
        if start is not None and start.query:
            return EffectiveQuery.model_validate_json(start.query)
        return self._understanding.effective_query(request)

    def _relaxed(
        self, query: EffectiveQuery, empty: Page, catalogs: list[Catalog], limit: int
    ) -> tuple[EffectiveQuery, Page]:
        """Return the first relaxation that finds products; the query itself if none does."""
        if query.relaxation is None:
            return query, empty
        declined = 0
        for relaxed in iter_relaxed(query):
            found = find_page(relaxed, catalogs, None, limit)
            if found.hits:
                return relaxed, found
            declined += 1
        relaxation = query.relaxation.model_copy(update={"declined_rounds": declined})
        return query.model_copy(update={"relaxation": relaxation}), empty

    def _catalogs(self, request: SearchRequest) -> list[Catalog]:
        """Return the catalogs to search. Only the field `catalog` must name one that exists."""
        if isinstance(request, SeedSearchRequest) and request.catalog is not None:
            try:
                return self._grants.select([request.catalog])
            except LookupError:
                raise ApiError(404, "catalog_not_found") from None
        return self._grants.known(request.catalog_keys)


def _parsed(model: type[_BodyT], body: bytes) -> _BodyT:
    try:
        return parse_body(model, body)
    except RefusedBodyError as error:
        raise ApiError(422, error.problems) from None


def _has_null_cursor(request: SearchRequest) -> bool:
    """Return True for every other search: its last page has a cursor that is null, not absent."""
    return zlib.crc32(request.fingerprint()) % 2 == 0
