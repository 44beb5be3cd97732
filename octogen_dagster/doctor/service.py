"""The class Service: the service under test, and the responses that several questions use."""

from __future__ import annotations

import contextlib
import functools
import hashlib
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypedDict, TypeVar
from urllib.parse import urlsplit

from pydantic import TypeAdapter
from pydantic_core import from_json

from octogen_dagster.api.blocking import BlockingClient
from octogen_dagster.api.catalog_sources import CatalogService, GrantedCatalogs, fetch_catalogs
from octogen_dagster.api.catalog_states import CatalogState
from octogen_dagster.api.estimate import FacetCounts
from octogen_dagster.api.flow import Flow, Send
from octogen_dagster.api.http import Response, TransportError
from octogen_dagster.api.models import (
    DomainCoverageResponse,
    MerchantCatalogSummary,
    MerchantProductListPage,
    MerchantProductUrlLookupResponse,
    MeResponse,
)
from octogen_dagster.api.operations import parsed_page, search_flow
from octogen_dagster.api.search import SearchRequest
from octogen_dagster.api.spending import dollars
from octogen_dagster.api.url_lists import CoverageUrlListPage
from octogen_dagster.errors import OctogenBudgetError, OctogenNotFoundError
from octogen_dagster.printable import usd

if TYPE_CHECKING:
    from octogen_dagster.api.models import MerchantProductListItem
    from octogen_dagster.api.service import Generation

PAGE_SIZE = 100
QUESTION_TIMEOUT = 30.0
"""Time limit for a question, in seconds.

The requests of a question have a shorter time limit, so that a timeout is reported as their error.
"""
_NO_SHOP = "this question requires a shop. Pass --host."
_Value = TypeVar("_Value")
_MODELS: dict[str, Any] = {
    "/me": MeResponse,
    "/catalogs": list[MerchantCatalogSummary],
    "/domains/": DomainCoverageResponse,
    "/stores/": DomainCoverageResponse,
    "/products/search": MerchantProductListPage,
    "/products/facet-counts": FacetCounts,
    "/products/lookup": MerchantProductUrlLookupResponse,
    "/coverage/url-lists": CoverageUrlListPage,
}
"""The documented response model for each path."""


class NotAskedError(Exception):
    """Raised if a question is skipped. The message contains the reason and the remedy."""


class Evidence(TypedDict):
    """Data from a run's responses, for comparison with a later run.

    It contains hashes instead of catalog or product names.
    """

    at: str
    catalog: str
    indexed_at: str
    products: list[str]
    content: str


class _WatchedClient(BlockingClient):
    """A client that records response fields whose type differs from the documentation.

    Reads accept a number in place of a documented string, but questions report the difference.
    """

    def __init__(self, service: CatalogService, mistyped: set[str]) -> None:
        super().__init__(service)
        self._mistyped = mistyped

    def run_all(self, flows: Sequence[Flow[_Value]]) -> list[_Value]:
        return [self.run(flow) for flow in flows]

    def _send(self, step: Send) -> Response | TransportError:
        answer = super()._send(step)
        if isinstance(answer, Response) and answer.is_success:
            self._mistyped.update(_mistyped_fields(answer))
        return answer


class Service:
    """The service under test. All questions share its responses.

    All questions use one catalog: the catalog from the earlier run whose evidence is in `before`,
    or the smallest catalog that has products.
    """

    client: BlockingClient

    def __init__(self, service: CatalogService, before: Evidence | None) -> None:
        self.before = before
        self.mistyped: set[str] = set()
        self.after_made_up_cursor: tuple[MerchantProductListPage, bool] | None = None
        self.pages: list[MerchantProductListPage] = []
        self.service = service.keeping_connections()
        self._found: dict[str, Any] = {}
        self._failures: dict[str, Exception] = {}
        self.reported: set[Exception] = set()

    def look(self) -> None:
        """List the catalogs before the questions are planned. The list is free of charge.

        A failure is reported later, by the first question that uses the list.
        """
        with contextlib.suppress(Exception), self.connected():
            self.catalogs()

    @contextlib.contextmanager
    def connected(self) -> Iterator[None]:
        """Open a connection for one question, so that a hanging question cannot block the next."""
        within = self.service.within(0.9 * QUESTION_TIMEOUT)
        with _WatchedClient(within, self.mistyped) as self.client:
            yield

    def _once(self, name: str, read: Callable[[], _Value]) -> _Value:
        """Read a value once.

        If this fails, only the first question reports it, and later questions are skipped.
        """
        if name not in self._found and name not in self._failures:
            try:
                self._found[name] = read()
            except (NotAskedError, OctogenBudgetError):
                raise
            except Exception as error:
                self._failures[name] = error
        if failure := self._failures.get(name):
            if failure in self.reported:
                raise NotAskedError(f"this question requires {name}, which could not be read.")
            self.reported.add(failure)
            raise failure
        found: _Value = self._found[name]
        return found

    def require_money(self, pages: int) -> None:
        """Raise `NotAskedError` if the cost of the pages exceeds the remaining budget."""
        spending = self.service.spending
        cost, left = pages * dollars(spending.prices.search_page_usd), spending.left_usd
        if left is not None and cost > left:
            raise NotAskedError(
                f"this question can cost {usd(cost)}, but only {usd(left)} is left within the "
                "--max-usd limit. Raise the limit."
            )

    def search(self, **arguments: Any) -> MerchantProductListPage:
        """Request a search page, by default for the catalog under test."""
        body = SearchRequest.of(**{"catalog": self.only_catalog, **arguments}).body()
        response = self.client.run(search_flow(self.client.service, body, "The search"))
        return parsed_page(response, "The search")

    def search_all(self, most: int, **arguments: Any) -> tuple[set[str], int, bool]:
        """Read up to `most` search pages, within the budget."""
        uuids: set[str] = set()
        cursor = None
        for number in range(1, most + 1):
            try:
                page = self.search(limit=PAGE_SIZE, cursor=cursor, **arguments)
            except OctogenBudgetError:
                if number == 1:
                    raise
                return uuids, number - 1, False
            uuids.update(page.uuids)
            cursor = page.next_cursor
            if not cursor:
                return uuids, number, True
        return uuids, most, False

    @property
    def me(self) -> MeResponse | None:
        """The API key's owner, or None if the service implements the older API contract."""
        return self._once("the key's account", self._read_me)

    def _read_me(self) -> MeResponse | None:
        try:
            me = self.client.get_me()
        except OctogenNotFoundError:
            return None
        # Tells the search which contract this is, without a rejected request first.
        self.service.refused.setdefault("search", frozenset({"catalog"}))
        return me

    @property
    def generation(self) -> Generation:
        return "seed" if self.me is None else "current"

    def require_current(self) -> None:
        if self.generation == "seed":
            raise NotAskedError("this question requires the current API contract.")

    def catalogs(self) -> Sequence[CatalogState]:
        """Return the catalogs. Only the first call requests the list from the service."""
        return self._once("the list of catalogs", self.read_catalogs)

    def read_catalogs(self) -> Sequence[CatalogState]:
        """Request the list of catalogs from the service."""
        if self.has_no_list:
            raise NotAskedError(_NO_SHOP)
        return fetch_catalogs(self.client, self.service.catalog_source).catalogs

    @property
    def has_no_list(self) -> bool:
        """True if no catalogs are configured and the service cannot list the granted catalogs."""
        return self.generation == "current" and isinstance(
            self.service.catalog_source, GrantedCatalogs
        )

    @property
    def catalog(self) -> CatalogState | None:
        """The catalog under test, or None for all catalogs that the API key can search."""
        if self.has_no_list:
            return None
        listed = [each for each in self.catalogs() if each.product_count != 0]
        if not listed:
            raise NotAskedError("no catalog has products.")
        key = self.before and self.before["catalog"]
        before = [each for each in listed if hashed(each.catalog) == key]
        return min(before or listed, key=lambda each: each.product_count or 0)

    @property
    def only_catalog(self) -> str | None:
        return self.catalog.catalog if self.catalog else None

    def require_catalog(self) -> CatalogState:
        if self.catalog is None:
            raise NotAskedError(_NO_SHOP)
        return self.catalog

    def count(self) -> int:
        """Return the service's product count for the catalog."""
        catalog = self.require_catalog()
        if catalog.product_count is None:
            raise NotAskedError("the service reports no product count for the catalog.")
        return catalog.product_count

    def walk(self, pages: int) -> Sequence[MerchantProductListPage]:
        """Return at least the first `pages` pages, or all pages if the catalog has fewer."""
        while len(self.pages) < pages and (not self.pages or self.pages[-1].next_cursor):
            cursor = self.pages[-1].next_cursor if self.pages else None
            number = len(self.pages) + 1
            read = functools.partial(self.search, limit=PAGE_SIZE, cursor=cursor)
            self.pages.append(self._once(f"search page {number}", read))
        if not self.pages[0].items:
            raise NotAskedError("the search returned no products.")
        return self.pages

    def items(self) -> Sequence[MerchantProductListItem]:
        """Return the products on all pages read so far. The first page is always read."""
        return [item for page in self.walk(1) for item in page.items]

    def evidence(self) -> Evidence | None:
        """Return the data for comparison with a later run, or None if no page was read."""
        if not self.pages:
            return None
        rows = [item.model_dump_json() for item in self.pages[0].items]
        return {
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "catalog": hashed(self.only_catalog or ""),
            "indexed_at": self.catalog.version if self.catalog else "",
            "products": [hashed(uuid) for uuid in self.pages[0].uuids],
            "content": hashed("".join(sorted(rows))),
        }


def _mistyped_fields(answer: Response) -> Iterator[str]:
    """Yield the response fields that had to be converted to the documented type."""
    assert answer.request
    path = urlsplit(answer.request.url).path
    model = next(model for part, model in _MODELS.items() if part in path)
    try:
        sent = from_json(answer.content)
        adapter = TypeAdapter[Any](model)
        read = adapter.dump_python(adapter.validate_python(sent), mode="json", by_alias=True)
    except (ValueError, RecursionError):  # the question fails with it
        return
    yield from _converted(sent, read, "")


def _converted(sent: Any, read: Any, path: str) -> Iterator[str]:
    if isinstance(sent, dict) and isinstance(read, dict):
        for name, value in sent.items():
            yield from _converted(value, read.get(name), f"{path}.{name}".lstrip("."))
    elif isinstance(sent, list) and isinstance(read, list):
        for value, read_value in zip(sent, read, strict=True):
            yield from _converted(value, read_value, path)
    elif isinstance(sent, str) and isinstance(read, dict):
        return  # the older contract sends images as strings
    elif _json_type(sent) != _json_type(read) and sent is not None:
        yield f"{path} is {_json_type(sent)}"


def _json_type(value: object) -> str:
    kinds = {bool: "a boolean", int: "a number", float: "a number", str: "a string", list: "a list"}
    return kinds.get(type(value), "an object")


def hashed(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
