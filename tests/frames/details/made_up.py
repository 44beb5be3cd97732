"""Made-up products and lookups, for tests that need no service."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from typing import Any

import polars as pl

from octogen_dagster.api.http import Response
from octogen_dagster.frames.columns import DETAIL_SCHEMA, FOUND, PRODUCT_SCHEMA
from octogen_dagster.frames.decode import read_lookup
from octogen_dagster.frames.details.failure_limit import FailureLimit
from octogen_dagster.frames.details.lookups import Lookup, LookupReader, Lookups
from octogen_dagster.frames.details.rows import Batch, DetailRows, ListedProducts, ReusableRows
from tests.frames.scripted import connection_at

LOOKED_UP_AT = datetime(2026, 11, 25, 6, 0, tzinfo=timezone.utc)


def url_of(uuid: str) -> str:
    return f"https://shop.example/{uuid}"


def products(*uuids: str, **columns: Any) -> pl.DataFrame:
    """A product snapshot."""
    rows = [{"uuid": uuid, "product_url": url_of(uuid), **columns} for uuid in uuids]
    return pl.DataFrame(rows, schema=PRODUCT_SCHEMA)


def found(uuid: str | None, envelope: dict[str, Any] | None = None, **fields: Any) -> Lookup:
    """The lookup of a product that was found.

    Args:
        uuid: The product's uuid.
        envelope: Further fields of the response.
        fields: Further fields of the product.
    """
    product = {"uuid": uuid, "productUrl": url_of(uuid or ""), **fields}
    known = {"catalogKey": "acme", "catalogDisplayName": "Acme", "product": product}
    return looked_up(known | (envelope or {}))


def looked_up(answer: dict[str, Any]) -> Lookup:
    """The lookup of a product that was found, from the response of the service."""
    content = json.dumps(answer).encode()
    return Lookup(FOUND, LOOKED_UP_AT, read_lookup(Response(200, content=content), "Product"))


def rows_of(
    snapshot: pl.DataFrame, previous: pl.DataFrame, reader: LookupReader
) -> tuple[pl.DataFrame, list[Batch], Counter[str]]:
    """The rows of a whole snapshot, its batches, and the unknown fields."""
    rows = DetailRows(
        ListedProducts(snapshot.lazy()),
        ReusableRows(previous.lazy()),
        reader,
        FailureLimit(1, len(snapshot), 300),
    )
    batches = list(rows.begin())
    frame = pl.concat([DETAIL_SCHEMA.to_frame(), *map(rows.finish, batches)])
    return frame, batches, rows.unknown_fields


def row_of(lookup: Lookup) -> tuple[dict[str, Any], Counter[str]]:
    """The row of the product "a" with this lookup, and the unknown fields."""
    reader = InstantReader(lambda _: lookup)
    frame, _, unknown = rows_of(products("a", title="T"), DETAIL_SCHEMA.to_frame(), reader)
    return frame.row(0, named=True), unknown


class InstantReader(LookupReader):
    """Makes each lookup at once, without a service.

    Args:
        look_up: Returns the result for an address.

    Attributes:
        urls: The addresses that were looked up, in order.
    """

    def __init__(self, look_up: Callable[[str], Lookup]) -> None:
        super().__init__(connection_at("http://127.0.0.1:1/v1"), FailureLimit(1, 10, 300))
        self._look_up_now = look_up
        self.urls: list[str] = []

    def begin(self, urls: Sequence[str]) -> Lookups:
        self.urls += urls
        return Lookups(urls, {url: self._look_up_now(url) for url in urls})
