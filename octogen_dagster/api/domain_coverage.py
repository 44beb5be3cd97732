"""The catalogs that serve a shop's host, as pydantic models. Only a catalog's key is required."""

from __future__ import annotations

from pydantic import Field

from octogen_dagster.api.response_model import Int64, ResponseModel


class DomainFieldValue(ResponseModel):
    """A common value of a facet, and the approximate number of products with it."""

    value: str | None = None
    label: str | None = None
    count: int | None = None


class DomainField(ResponseModel):
    """A facet of a catalog's products. `coverage` is the share of products that have it."""

    name: str | None = None
    display_name: str | None = None
    source: str | None = None
    coverage: float | None = None
    populated: int | None = None
    distinct: int | None = None
    truncated: bool | None = None
    top_values: list[DomainFieldValue] | None = None


class PriceBucket(ResponseModel):
    """The number of products whose price is at least `min` and below `max`."""

    min: float | None = None
    max: float | None = None
    count: int | None = None


class PriceDistribution(ResponseModel):
    """The distribution of the current prices of a catalog's products."""

    populated: int | None = None
    median: float | None = None
    below: int | None = None
    above: int | None = None
    buckets: list[PriceBucket] | None = None


class DomainCatalogCoverage(ResponseModel):
    """A catalog that serves a shop's host. `computed_at` is the text that the service sent."""

    catalog: str = Field(min_length=1)
    catalog_display_name: str | None = None
    product_count: Int64 | None = None
    computed_at: str | None = None
    fields: list[DomainField] | None = None
    price: PriceDistribution | None = None


class DomainCoverageResponse(ResponseModel):
    """The catalogs that serve a shop's host."""

    host: str | None = None
    catalogs: list[DomainCatalogCoverage] = Field(default_factory=list)
