"""CatalogState: what a source says of a catalog. A list of 100,000 is decoded in 50 ms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from pydantic import TypeAdapter, ValidationError

from octogen_dagster.api.models import DomainCoverageResponse, MerchantCatalogSummary
from octogen_dagster.api.responses import parsed
from octogen_dagster.api.search import FacetName
from octogen_dagster.errors import OctogenError

if TYPE_CHECKING:
    from octogen_dagster.api.http import Response

_TIMES = TypeAdapter(datetime)


class CatalogState(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """A catalog and what is known of it. All but its key may be unknown, which is None.

    Attributes:
        catalog: The catalog's key.
        display_name: Its name for people.
        source_base_url: The base URL of the shop.
        host: The host of the shop, such as `shop.example`.
        product_count: The number of its products.
        last_indexed_at: When the catalog was last indexed, with a time zone.
        computed_at: When `product_count` was computed, with a time zone. It is not known whether
            it moves with each index run.
        brands: The most common brands, each with its number of products.
    """

    catalog: Annotated[str, msgspec.Meta(min_length=1)]
    display_name: str | None = None
    source_base_url: str | None = None
    host: str | None = None
    product_count: Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)] | None = None
    last_indexed_at: Annotated[datetime, msgspec.Meta(tz=True)] | None = None
    computed_at: Annotated[datetime, msgspec.Meta(tz=True)] | None = None
    brands: tuple[tuple[str, int], ...] = ()

    @property
    def indexed_at(self) -> datetime | None:
        """The time that moves when the catalog may have changed; None if none is known."""
        return self.last_indexed_at or self.computed_at

    @property
    def version(self) -> str:
        """`indexed_at` as text in UTC, the data version of a snapshot; empty if none is known."""
        indexed_at = self.indexed_at
        return indexed_at.astimezone(UTC).isoformat() if indexed_at else ""


@dataclass(frozen=True)
class CatalogList:
    """The catalogs of a source.

    Attributes:
        catalogs: The catalogs.
        warnings: A line for the log about each part of the source that could not be used.
        failure: Why catalogs are missing that the source may have at another time; None if none
            are.
        shops_left_out: Why each shop has no catalogs in the list, by its host.
    """

    catalogs: Sequence[CatalogState]
    warnings: Sequence[str] = ()
    failure: OctogenError | None = None
    shops_left_out: Mapping[str, str] = field(default_factory=dict)


_STATES = msgspec.json.Decoder(list[CatalogState])


class _ListedCatalog(MerchantCatalogSummary):
    last_indexed_at: Any = None  # one that is no time stops no other catalog


def parsed_catalog_list(response: Response, subject: str) -> CatalogList:
    """Parse the body of `GET /catalogs`; `subject` is what was requested, for the error."""
    try:
        states = _STATES.decode(response.content)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        pass  # The models accept more than the contract allows, or say what is wrong.
    else:
        times = [state.last_indexed_at for state in states]
        if {time and time.tzinfo for time in times} <= {None, UTC}:
            return CatalogList(states)
    warnings: list[str] = []
    return CatalogList(
        [
            CatalogState(
                entry.catalog,
                entry.display_name,
                entry.source_base_url,
                product_count=entry.product_count,
                last_indexed_at=_time(
                    entry.catalog, "lastIndexedAt", entry.last_indexed_at, warnings
                ),
            )
            for entry in parsed(list[_ListedCatalog], response, subject)
        ],
        warnings,
    )


def catalogs_of_shop(shop: DomainCoverageResponse, host: str) -> CatalogList:
    """The catalogs that serve the host of a shop, as `GET /domains/{host}` says."""
    warnings: list[str] = []
    return CatalogList(
        [
            CatalogState(
                entry.catalog,
                entry.catalog_display_name,
                host=shop.host or host,
                product_count=entry.product_count,
                computed_at=_time(entry.catalog, "computedAt", entry.computed_at, warnings),
                brands=tuple(
                    (value.value, value.count)
                    for field in entry.fields or ()
                    if field.name == FacetName.BRAND_NAME
                    for value in field.top_values or ()
                    if value.value and value.count and value.count > 0
                ),
            )
            for entry in shop.catalogs
        ],
        warnings,
    )


def _time(catalog: str, field: str, value: Any, warnings: list[str]) -> datetime | None:
    """Parse a time as UTC; if that is not possible, warn and return None."""
    if value is None:
        return None
    try:
        time = _TIMES.validate_python(value)
        has_zone = time.tzinfo is not None
        return time.astimezone(UTC) if has_zone else time.replace(tzinfo=UTC)
    except (ValidationError, OverflowError):
        warnings.append(
            f"Catalog {catalog!r}: its {field} {str(value)[:60]!r} is not a time that can be used. "
            "The catalog is taken as one without."
        )
        return None
