"""The pages of one catalog, made of the sandbox's products before anything is measured."""

import re
import uuid

from pydantic_core import to_json

from benchmarks.source import PAGE_SIZE, Generation
from octogen_dagster.sandbox.data.catalog import make_catalog
from octogen_dagster.sandbox.rest.cursors import Cursors, Position
from octogen_dagster.sandbox.rest.request_bodies import SEARCH_REQUESTS
from octogen_dagster.sandbox.rest.views import catalog_summary, list_item, page_extras

_DISTINCT_PAGES = 1000
"""After so many the products come again, under other uuids."""

_UUID = re.compile(rb'"uuid":"[0-9a-f]{8}-')


class CatalogPages:
    """The JSON of all pages of a catalog; every product has a uuid of its own.

    Args:
        key: The catalog.
        products: How many it has, a multiple of the page size.
        generation: The contract.
    """

    def __init__(self, key: str, products: int, generation: Generation) -> None:
        self.count, rest = divmod(products, PAGE_SIZE)
        if rest or not products:
            raise ValueError(f"{products} products do not fill pages of {PAGE_SIZE}")
        catalog = make_catalog(key, products, seed=1)
        self.summary = catalog_summary(catalog)
        self.request_ids = [str(uuid.uuid4()) for _ in range(self.count)]
        search = SEARCH_REQUESTS[generation].model_validate({"limit": PAGE_SIZE})
        cursors = Cursors(b"benchmarks")
        self._number_by_cursor: dict[str, int] = {}
        self._ends: list[bytes] = []
        for number, request_id in enumerate(self.request_ids):
            following = number + 1
            end: dict[str, object] = {}
            if following < self.count:
                place = Position(following + 1, following * PAGE_SIZE, key)
                end["nextCursor"] = cursors.encode(place, search.fingerprint())
                self._number_by_cursor[str(end["nextCursor"])] = following
            elif generation == "seed":
                end["nextCursor"] = None
            if generation == "current":
                end |= page_extras(search, request_id)
            self._ends.append(b"," + to_json(end)[1:])
        self._items = []
        for number in range(min(self.count, _DISTINCT_PAGES)):
            places = range(number * PAGE_SIZE, (number + 1) * PAGE_SIZE)
            items = [list_item(catalog.product(place), generation) for place in places]
            self._items.append(bytearray(to_json({"items": items})[:-1]))
        self._uuids = [[match.end() for match in _UUID.finditer(page)] for page in self._items]
        self._laps = [-1] * len(self._items)

    def number(self, cursor: str | None) -> int:
        """Which page a cursor asks for; the first for one that is not known, as the service."""
        return self._number_by_cursor.get(cursor or "", 0)

    def body(self, number: int) -> tuple[bytearray, bytes]:
        """A page, in two parts; the first is valid until the next call."""
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
        """The size of a page."""
        return sum(map(len, self._items)) // len(self._items) + len(self._ends[0])
