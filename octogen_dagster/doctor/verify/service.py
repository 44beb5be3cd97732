"""Service: the service that is asked, and what was read of it for more than one question."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from octogen_dagster.api.catalog_states import CatalogState, catalogs_of_shop
from octogen_dagster.api.flow import domain_flow, parsed_page, search_flow
from octogen_dagster.api.search import SearchRequest
from octogen_dagster.api.spending import dollars
from octogen_dagster.doctor.verify import answers
from octogen_dagster.doctor.verify.answers import NotAskedError
from octogen_dagster.errors import OctogenBudgetError, OctogenNotFoundError
from octogen_dagster.printable import usd

if TYPE_CHECKING:
    from collections.abc import Sequence

    from octogen_dagster.api.blocking import BlockingClient
    from octogen_dagster.api.models import (
        MerchantProductListItem,
        MerchantProductListPage,
        MeResponse,
    )
    from octogen_dagster.api.service import Generation

PAGE_SIZE = 100
_NO_SHOP = "it needs a shop: give --host."
_Value = TypeVar("_Value")


class Service:
    """The service that is asked, and what was read of it for more than one question."""

    def __init__(self, client: BlockingClient, host: str | None) -> None:
        self.client = client
        self.host = host
        self.pages: list[MerchantProductListPage] = []
        self._service = client.service
        self._found: dict[str, Any] = {}
        self._failures: dict[str, Exception] = {}
        self.told: set[Exception] = set()

    def look(self) -> None:
        """Read what the plan needs, which is free; a failure is left to the questions.

        It is a ValueError if the service does not cover the host that the user named.
        """
        self.begin()
        with contextlib.suppress(Exception):
            self.catalogs()
        failure = self._failures.get("the list of catalogs")
        if isinstance(failure, OctogenNotFoundError) and failure.detail == "domain_not_covered":
            raise ValueError(f"--host: {failure}")

    def begin(self) -> None:
        """Begin the time of a question."""
        self.client.service = self._service.within(answers.QUESTION_TIMEOUT)

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
        spending = self._service.spending
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
        """Search as many pages as there are, `most` at most, and as the money allows.

        Returns the uuids, the number of pages, and whether these are all.
        """
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
            return self.client.get_me()
        except OctogenNotFoundError:
            return None

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
        if self.generation == "seed":
            return self.client.list_catalog_states().catalogs
        if self.host is None:
            raise NotAskedError(_NO_SHOP)
        shop = self.client.run(domain_flow(self.client.service, self.host))
        return catalogs_of_shop(shop, self.host).catalogs

    @property
    def catalog(self) -> CatalogState | None:
        """The smallest catalog with products; None for all that the key may search."""
        if self.host is None and self.generation == "current":
            return None
        listed = [each for each in self.catalogs() if each.product_count != 0]
        if not listed:
            raise NotAskedError("there is no catalog with products.")
        return min(listed, key=lambda each: each.product_count or 0)

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
