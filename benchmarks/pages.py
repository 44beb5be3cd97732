"""The pages of one catalog, made of the sandbox's products before anything is measured."""

import re
import uuid

from pydantic_core import to_json

from benchmarks.source import PAGE_SIZE, Generation
from octogen_dagster.sandbox.data.catalog import Catalog, make_catalog
from octogen_dagster.sandbox.rest.cursors import Cursors, Position
from octogen_dagster.sandbox.rest.request_bodies import SEARCH_REQUESTS
from octogen_dagster.sandbox.rest.understanding import Understanding
from octogen_dagster.sandbox.rest.views import catalog_summary, effective_query_view, list_item

_MAX_DISTINCT_PAGES = 1000
"""After so many pages the products repeat, with other uuids."""

_UUID = re.compile(rb'"uuid":"[0-9a-f]{8}-')


class CatalogPages:
    """The JSON of all pages of a catalog, in which each product has a uuid of its own.

    Args:
        key: The catalog key.
        products: The number of products, a multiple of the page size.
        generation: The contract.

    Raises:
        ValueError: The number of products is not a multiple of the page size.
    """

    def __init__(self, key: str, products: int, generation: Generation) -> None:
        self.count, rest = divmod(products, PAGE_SIZE)
        if rest or not products:
            raise ValueError(f"{products} products do not fill pages of {PAGE_SIZE}")
        catalog = make_catalog(key, products, seed=1)
        self.summary = catalog_summary(catalog)
        self.request_ids = [str(uuid.uuid4()) for _ in range(self.count)]
        self._number_by_cursor: dict[str, int] = {}
        self._ends = self._make_ends(key, generation)
        distinct = range(min(self.count, _MAX_DISTINCT_PAGES))
        self._items = [_items(catalog, number, generation) for number in distinct]
        self._uuids = [[match.end() for match in _UUID.finditer(page)] for page in self._items]
        self._laps = [-1] * len(self._items)

    def _make_ends(self, key: str, generation: Generation) -> list[bytes]:
        """Return the JSON after the items of each page, and remember the cursors in it."""
        search = SEARCH_REQUESTS[generation].model_validate({"limit": PAGE_SIZE})
        cursors = Cursors(b"benchmarks")
        effective_query = effective_query_view(Understanding().effective_query(search))
        ends = []
        for following, request_id in enumerate(self.request_ids, start=1):
            end: dict[str, object] = {}
            if following < self.count:
                position = Position(following + 1, following * PAGE_SIZE, key)
                cursor = cursors.encode(position, search.fingerprint())
                end["nextCursor"] = cursor
                self._number_by_cursor[cursor] = following
            elif generation == "seed":
                end["nextCursor"] = None
            if generation == "current":
                end |= {"requestId": request_id, "effectiveQuery": effective_query}
            ends.append(b"," + to_json(end)[1:])
        return ends

    def number(self, cursor: str | None) -> int:
        """Return the page of a cursor, or the first page for an unknown cursor."""
        return self._number_by_cursor.get(cursor or "", 0)

    def body(self, number: int) -> tuple[bytearray, bytes]:
        """Return a page in two parts. The first part is valid until the next call."""
        lap, place = divmod(number, len(self._items))
        items = self._items[place]
        if self._laps[place] != lap:
            self._laps[place] = lap
            digits = b"%04x" % lap
            for at in self._uuids[place]:
                items[at : at + 4] = digits
        return items, self._ends[number]

    @property
    def mean_bytes(self) -> int:
        """The mean size of a page, in bytes."""
        return sum(map(len, self._items)) // len(self._items) + len(self._ends[0])


def _items(catalog: Catalog, number: int, generation: Generation) -> bytearray:
    """Return the JSON of a page up to the end of its items."""
    indexes = range(number * PAGE_SIZE, (number + 1) * PAGE_SIZE)
    items = [list_item(catalog.product(index), generation) for index in indexes]
    return bytearray(to_json({"items": items})[:-1])
