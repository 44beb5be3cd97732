"""Made-up products and lookups, for tests that need no service."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from typing import Any

import polars as pl

from octogen_dagster.api.models import MerchantProductUrlLookupResponse
from octogen_dagster.frames.details.failure_limit import FailureLimit
from octogen_dagster.frames.details.lookups import Lookup, LookupReader, Lookups
from octogen_dagster.frames.details.schema import FOUND
from octogen_dagster.frames.schema import PRODUCT_SCHEMA
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
    response = MerchantProductUrlLookupResponse.model_validate(known | (envelope or {}))
    return Lookup(FOUND, LOOKED_UP_AT, response)


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
