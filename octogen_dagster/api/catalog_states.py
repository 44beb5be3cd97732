"""Catalog lists and their decoding. Decoding 100,000 catalogs takes about 50 ms."""

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
    """A catalog listed by a catalog source. Every field except `catalog` can be None (unknown).

    Attributes:
        catalog: The catalog's key.
        display_name: The display name.
        source_base_url: The shop's base URL.
        host: The shop's host, such as `shop.example`.
        product_count: The number of products.
        last_indexed_at: When Octogen last indexed the catalog, with a time zone.
        computed_at: When Octogen computed `product_count`, with a time zone. This time might not
            change each time the catalog is indexed.
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
        """`last_indexed_at` if it is known, otherwise `computed_at`. None if both are unknown."""
        return self.last_indexed_at or self.computed_at

    @property
    def version(self) -> str:
        """The data version for snapshots: `indexed_at` as an ISO time in UTC.

        An empty string if `indexed_at` is unknown.
        """
        indexed_at = self.indexed_at
        return indexed_at.astimezone(UTC).isoformat() if indexed_at else ""


@dataclass(frozen=True)
class CatalogList:
    """The result of a catalog source: its catalogs, warnings and errors.

    Attributes:
        catalogs: The catalogs.
        warnings: Log messages about problems with the source's data or requests.
        failure: The temporary error that prevented some catalogs from being listed, or None.
        shops_left_out: The hosts whose catalogs could not be listed, with the reason for each.
    """

    catalogs: Sequence[CatalogState]
    warnings: Sequence[str] = ()
    failure: OctogenError | None = None
    shops_left_out: Mapping[str, str] = field(default_factory=dict)


_STATES = msgspec.json.Decoder(list[CatalogState])


class _ListedCatalog(MerchantCatalogSummary):
    last_indexed_at: Any = None  # a malformed time must not fail the whole list


def parsed_catalog_list(response: Response, subject: str) -> CatalogList:
    """Parse the body of `GET /catalogs`. Error messages begin with `subject`."""
    try:
        states = _STATES.decode(response.content)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        pass  # The pydantic models below accept more, and their errors describe the problem.
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
    """Convert the response of `GET /domains/{host}` to a catalog list."""
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
    """Parse a time as UTC. If the time is malformed, add a warning and return None."""
    if value is None:
        return None
    try:
        time = _TIMES.validate_python(value)
        has_zone = time.tzinfo is not None
        return time.astimezone(UTC) if has_zone else time.replace(tzinfo=UTC)
    except (ValidationError, OverflowError):
        warnings.append(
            f"Catalog {catalog!r} has an invalid {field}: {str(value)[:60]!r}. The value is "
            "ignored."
        )
        return None
