"""Service: the service that is asked, and what was read of it for more than one question."""

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
from octogen_dagster.api.flow import Flow, parsed_page, search_flow
from octogen_dagster.api.http import Response
from octogen_dagster.api.models import (
    DomainCoverageResponse,
    MerchantCatalogSummary,
    MerchantProductListPage,
    MerchantProductUrlLookupResponse,
    MeResponse,
)
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
"""Seconds for a question. Its requests end before, so that they say what went wrong."""
_NO_SHOP = "it needs a shop: give --host."
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
"""What answers to each operation are documented as."""


class NotAskedError(Exception):
    """The question cannot be asked; the message says why, and what would let it be asked."""


class Evidence(TypedDict):
    """What a later run compares with; it names no catalog and no product."""

    at: str
    catalog: str
    indexed_at: str
    products: list[str]
    content: str


class _WatchedClient(BlockingClient):
    """A client that notes which fields of answers have another type than the documented one.

    Reads accept a number where a text is documented. A question must not.
    """

    def __init__(self, service: CatalogService, mistyped: set[str]) -> None:
        super().__init__(service)
        self._mistyped = mistyped

    def run(self, flow: Flow[_Value]) -> _Value:
        return super().run(self._watched(flow))

    def run_all(self, flows: Sequence[Flow[_Value]]) -> list[_Value]:
        return [self.run(flow) for flow in flows]

    def _watched(self, flow: Flow[_Value]) -> Flow[_Value]:
        answer = None
        with contextlib.closing(flow):
            while True:
                try:
                    step = flow.send(answer)
                except StopIteration as end:
                    value: _Value = end.value
                    return value
                answer = yield step
                if isinstance(answer, Response) and answer.is_success:
                    self._mistyped.update(_mistyped_fields(answer))


class Service:
    """The service that is asked, and what was read of it for more than one question.

    `before` is what `evidence` was in an earlier run. The questions are about one catalog: that of
    the earlier run, or else the smallest that has products.
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
        self.told: set[Exception] = set()

    def look(self) -> None:
        """Read what the plan needs, which is free; a failure is left to the questions."""
        with contextlib.suppress(Exception), self.connected():
            self.catalogs()

    @contextlib.contextmanager
    def connected(self) -> Iterator[None]:
        """Connect for a question. One that outlives its time is in the way of no other."""
        within = self.service.within(0.9 * QUESTION_TIMEOUT)
        with _WatchedClient(within, self.mistyped) as self.client:
            yield

    def _once(self, name: str, read: Callable[[], _Value]) -> _Value:
        """Return what was read once. A failure is the answer to the question that meets it first.

        The others that need it are not asked.
        """
        if name not in self._found and name not in self._failures:
            try:
                self._found[name] = read()
            except (NotAskedError, OctogenBudgetError):
                raise
            except Exception as error:
                self._failures[name] = error
        if failure := self._failures.get(name):
            if failure in self.told:
                raise NotAskedError(f"it needs {name}, which had no usable answer.")
            self.told.add(failure)
            raise failure
        found: _Value = self._found[name]
        return found

    def require_money(self, pages: int) -> None:
        """Raise `NotAskedError` if so many pages cost more than is left."""
        spending = self.service.spending
        cost, left = pages * dollars(spending.prices.search_page_usd), spending.left_usd
        if left is not None and cost > left:
            raise NotAskedError(
                f"it may cost {usd(cost)}, and {usd(left)} of --max-usd are left: raise it."
            )

    def search(self, **arguments: Any) -> MerchantProductListPage:
        """Request a page of a search, of the catalog that is asked about unless one is named."""
        body = SearchRequest.of(**{"catalog": self.only_catalog, **arguments}).body()
        response = self.client.run(search_flow(self.client.service, body, "The search"))
        return parsed_page(response, "The search")

    def search_all(self, most: int, **arguments: Any) -> tuple[set[str], int, bool]:
        """Search as many pages as there are, `most` at most, and as the money allows."""
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
        """The owner of the key; None from a service of the older contract."""
        return self._once("the account of the key", self._read_me)

    def _read_me(self) -> MeResponse | None:
        try:
            me = self.client.get_me()
        except OctogenNotFoundError:
            return None
        # No search needs to be refused to learn which generation this is.
        self.service.refused.setdefault("search", frozenset({"catalog"}))
        return me

    @property
    def generation(self) -> Generation:
        return "seed" if self.me is None else "current"

    def require_current(self) -> None:
        if self.generation == "seed":
            raise NotAskedError("the older contract has no such thing.")

    def catalogs(self) -> Sequence[CatalogState]:
        """The catalogs as they were listed first."""
        return self._once("the list of catalogs", self.read_catalogs)

    def read_catalogs(self) -> Sequence[CatalogState]:
        """The catalogs as the service says it now."""
        if self.has_no_list:
            raise NotAskedError(_NO_SHOP)
        return fetch_catalogs(self.client, self.service.catalog_source).catalogs

    @property
    def has_no_list(self) -> bool:
        """True if nobody names catalogs: today's service lists none of those that are granted."""
        return self.generation == "current" and isinstance(
            self.service.catalog_source, GrantedCatalogs
        )

    @property
    def catalog(self) -> CatalogState | None:
        """The catalog that is asked about; None for all that the key may search."""
        if self.has_no_list:
            return None
        listed = [each for each in self.catalogs() if each.product_count != 0]
        if not listed:
            raise NotAskedError("there is no catalog with products.")
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
        """The number of products that the service counts in the catalog."""
        catalog = self.require_catalog()
        if catalog.product_count is None:
            raise NotAskedError("the service does not count the catalog.")
        return catalog.product_count

    def walk(self, pages: int) -> Sequence[MerchantProductListPage]:
        """Return the first pages of the catalog: as many if there are, more if more were read."""
        while len(self.pages) < pages and (not self.pages or self.pages[-1].next_cursor):
            cursor = self.pages[-1].next_cursor if self.pages else None
            number = len(self.pages) + 1
            read = functools.partial(self.search, limit=PAGE_SIZE, cursor=cursor)
            self.pages.append(self._once(f"page {number} of the search", read))
        if not self.pages[0].items:
            raise NotAskedError("the search finds no products.")
        return self.pages

    def items(self) -> Sequence[MerchantProductListItem]:
        """The products of the pages that were read, and of the first one."""
        return [item for page in self.walk(1) for item in page.items]

    def evidence(self) -> Evidence | None:
        """What a later run compares with; None if no page was read."""
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
    """Yield each field of an answer that a read converts to its documented type, and its own."""
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
        return  # an image of the older contract is a text
    elif _json_type(sent) != _json_type(read) and sent is not None:
        yield f"{path} is {_json_type(sent)}"


def _json_type(value: object) -> str:
    kinds = {bool: "a boolean", int: "a number", float: "a number", str: "a text", list: "a list"}
    return kinds.get(type(value), "an object")


def hashed(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
