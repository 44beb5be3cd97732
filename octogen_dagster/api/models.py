"""Pydantic models for the service's responses: products, catalogs, shops, accounts.

Both API contracts share these models: an image becomes a `ProductImage` whether it arrives
as a string or as an object. Unknown fields are kept in `model_extra`.
"""

from __future__ import annotations

import functools
import logging
from datetime import UTC, datetime
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic.alias_generators import to_camel

_LOGGER = logging.getLogger(__name__)


class ResponseModel(BaseModel):
    """A JSON object in a response, with field names in camelCase. Unknown fields are kept."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        populate_by_name=True,
        extra="allow",
        coerce_numbers_to_str=True,
        allow_inf_nan=False,
    )


def _as_utc(value: datetime) -> datetime | None:
    if value.tzinfo is None:
        return value.replace(tzinfo=UTC)
    try:
        return value.astimezone(UTC)
    except OverflowError:
        _warn_out_of_range("timestamp", value.isoformat(), "the years 1 to 9999 in UTC")
        return None


def _as_int64(value: int) -> int | None:
    if -(2**63) <= value < 2**63:
        return value
    _warn_out_of_range("number", str(value)[:80], "the 64-bit range")
    return None


@functools.lru_cache(maxsize=100)  # a placeholder such as year 1 might occur in every product
def _warn_out_of_range(kind: str, value: str, limit: str) -> None:
    _LOGGER.warning(
        f"The service sent the {kind} {value}, which is outside {limit}. The {kind} is replaced "
        "with null. Report this to Octogen."
    )


UtcDatetime = Annotated[datetime, AfterValidator(_as_utc)]
"""A UTC time. A time that Python cannot represent in UTC becomes None, with a warning."""

Int64 = Annotated[int, AfterValidator(_as_int64)]
"""A 64-bit integer. A number that does not fit becomes None, with a warning."""


class MerchantCatalogSummary(ResponseModel):
    """A catalog that the API key can read. Every field except `catalog` can be None."""

    catalog: str = Field(min_length=1)
    display_name: str | None = None
    source_base_url: str | None = None
    product_count: Int64 | None = None
    last_indexed_at: UtcDatetime | None = None


class ProductBrand(ResponseModel):
    """The brand as the merchant shows it."""

    name: str | None = None
    slug: str | None = None
    url: str | None = None
    description: str | None = None


class ProductRating(ResponseModel):
    """The product's average rating at the merchant, and the number of ratings."""

    average: float | None = None
    count: Int64 | None = None


class ProductImage(ResponseModel):
    """An image. Older services send only `url`."""

    url: str
    cdn_url: str | None = None
    width: Int64 | None = None
    height: Int64 | None = None
    mime_type: str | None = None
    size_bytes: Int64 | None = None


def _as_image(value: Any) -> Any:
    return {"url": value} if isinstance(value, str) else value


Image = Annotated[ProductImage, BeforeValidator(_as_image)]


class MerchantProductListItem(ResponseModel):
    """A product on a search page.

    The fields after `is_active` require the current API contract.

    `is_active` is true if the service omits it, and None (unknown) if the service sends null.
    """

    uuid: str = Field(min_length=1)
    product_url: str
    title: str | None = None
    brand: ProductBrand | None = None
    current_price: float | None = None
    original_price: float | None = None
    image_url: str | None = None
    images: list[Image] | None = None
    rating: ProductRating | None = None
    updated_at: UtcDatetime | None = None
    is_active: bool | None = True
    catalog_key: str | None = None
    catalog_display_name: str | None = None
    category_path: list[str] | None = None
    colors: list[str] | None = None
    sizes: list[str] | None = None
    currency: str | None = None
    gender: str | None = None
    in_stock: bool | None = None
    primary_image: Image | None = None
    display_match_score: float | None = None
    raw_score: float | None = None


class MerchantProductListPage(ResponseModel):
    """One search page. `items` is an empty list if the service omits it or sends null."""

    items: list[MerchantProductListItem]
    next_cursor: str | None = None
    request_id: str | None = None
    effective_query: Any = None

    @model_validator(mode="before")
    @classmethod
    def _without_items(cls, page: Any) -> Any:
        # An object with neither field is not a page and must not be mistaken for an empty catalog.
        is_page = isinstance(page, dict) and ("items" in page or "effectiveQuery" in page)
        if is_page and page.get("items") is None:
            return {**page, "items": []}
        return page

    @property
    def uuids(self) -> list[str]:
        return [item.uuid for item in self.items]


class ProductCategory(ResponseModel):
    """A category or breadcrumb on the merchant's site."""

    name: str | None = None
    url: str | None = None


class ProductColor(ResponseModel):
    """An available color."""

    label: str | None = None
    swatch_url: str | None = None
    hex_code: str | None = None


def _as_color(value: Any) -> Any:
    return {"label": value} if isinstance(value, str) else value


class ProductVariant(ResponseModel):
    """A purchasable variant."""

    sku: str | None = None
    product_url: str | None = None
    color: Annotated[ProductColor, BeforeValidator(_as_color)] | None = None
    size: str | None = None
    in_stock: bool | None = None
    image_url: str | None = None


class ProductDetails(ResponseModel):
    """The product's materials, fit, dimensions and patterns."""

    materials: list[str] | None = None
    fit: list[str] | None = None
    dimensions: str | None = None
    patterns: list[str] | None = None


class ProductAudience(ResponseModel):
    """The genders and age groups the product is made for."""

    genders: list[str] | None = None
    age_groups: list[str] | None = None


class ProductIdentifiers(ResponseModel):
    """The merchant's identifiers for the product, and standard identifiers such as the GTIN."""

    product_id: str | None = None
    gtin: str | None = None
    product_group_id: str | None = None


class ProductPromotion(ResponseModel):
    """A promotion for the product."""

    description: str | None = None
    code: str | None = None
    promotion_id: str | None = None


class ProductReview(ResponseModel):
    """A customer review."""

    author: str | None = None
    rating: float | None = None
    body: str | None = None
    published_at: UtcDatetime | None = None


class ProductVideo(ResponseModel):
    """A product video."""

    url: str | None = None
    thumbnail_url: str | None = None
    name: str | None = None


class _EnrichmentModel(ResponseModel):
    model_config = ConfigDict(alias_generator=None)


class CanonicalBrandEnrichment(_EnrichmentModel):
    """Octogen's profile for a brand, with facet values."""

    brand_accessibility_index: str | None = None
    brand_community_perception: str | None = None
    brand_craft_production: str | None = None
    brand_description: str | None = None
    brand_popularity_level: str | None = None
    brand_popularity_trend_direction: str | None = None
    brand_positioning: str | None = None
    brand_quality_justification: str | None = None
    brand_quality_score: float | None = None
    directory_subheading: str | None = None
    domain: str | None = None
    facet_brand_cultural_anchors: list[str] | None = None
    facet_brand_ethics: list[str] | None = None
    facet_brand_hype_cycle_stage: list[str] | None = None
    facet_brand_inclusivity: list[str] | None = None
    facet_key_people_names: list[str] | None = None
    facet_key_people_nationalities: list[str] | None = None
    facet_origin_country: str | None = None
    facet_price_tier: str | None = None
    facet_style_identity: list[str] | None = None
    facet_sustainability: list[str] | None = None
    facet_target_audience: str | None = None
    founded_year: Int64 | None = None
    occasion_fit: str | None = None


class CanonicalBrand(_EnrichmentModel):
    """The brand in Octogen's brand directory. The facet `brand_name` filters by this brand."""

    brand_uuid: str | None = None
    brand_name: str | None = None
    brand_slug: str | None = None
    brand_synonyms: list[str] | None = None
    brand_enrichment: CanonicalBrandEnrichment | None = None


class AttributeValue(_EnrichmentModel):
    """An attribute value: `handle` is for filters, and `name` is for display."""

    handle: str | None = None
    name: str | None = None


class ProductAttribute(_EnrichmentModel):
    """A product attribute and its values."""

    handle: str | None = None
    name: str | None = None
    values: list[AttributeValue] | None = None


class ProductEnrichment(_EnrichmentModel):
    """Data that Octogen adds to a product, such as its style and its category."""

    type: str | None = None
    type_synonyms: list[str] | None = None
    tags: list[str] | None = None
    styles: list[str] | None = None
    gender: str | None = None
    age_groups: list[str] | None = None
    color: list[str] | None = None
    color_family: list[str] | None = None
    color_indices: list[Int64] | None = None
    category_path: list[str] | None = None
    classification: dict[str, list[str]] | None = None
    fully_qualified_name: str | None = None
    taxonomy_uuid: str | None = None
    is_activewear: bool | None = None
    image_with_single_product: bool | None = None
    attributes: dict[str, list[str]] | None = None
    attribute_handles: dict[str, list[str]] | None = None
    structured_attributes: list[ProductAttribute] | None = None
    summary: str | None = None
    brand_id: str | None = None
    canonical_brand: CanonicalBrand | None = None


class MerchantProductView(MerchantProductListItem):
    """The full view of a product. `uuid` is None if the product is not in the index."""

    uuid: str | None = None  # type: ignore[assignment]
    # A product outside the index is neither active nor inactive.
    is_active: bool | None = Field(
        default_factory=lambda fields: True if fields.get("uuid") else None
    )
    description: str | None = None
    categories: list[ProductCategory] | None = None
    colors: list[ProductColor] | None = None  # type: ignore[assignment]
    tags: list[str] | None = None
    variants: list[ProductVariant] | None = None
    details: ProductDetails | None = None
    audience: ProductAudience | None = None
    identifiers: ProductIdentifiers | None = None
    breadcrumbs: list[ProductCategory] | None = None
    promotions: list[ProductPromotion] | None = None
    reviews: list[ProductReview] | None = None
    videos: list[ProductVideo] | None = None
    enrichment: ProductEnrichment | None = None


class ProductResolution(ResponseModel):
    """How the service scraped the product page if the product is not in the index."""

    method: str | None = None
    completeness: str | None = None
    rendered: bool | None = None
    missing_fields: list[str] | None = None


class MerchantProductUrlLookupResponse(ResponseModel):
    """The response to a lookup by product URL.

    The fields after `product` require the current API contract. If `source` is not `indexed`, no
    catalog contains the product, and its data was scraped from the product page.
    """

    catalog_key: str | None = None
    catalog_display_name: str | None = None
    source_base_url: str | None = None
    product: MerchantProductView
    source: str | None = None
    requested_url: str | None = None
    normalized_url: str | None = None
    resolved_url: str | None = None
    canonical_url: str | None = None
    matched_via: str | None = None
    cache_status: str | None = None
    resolution: ProductResolution | None = None
    warnings: list[str] | None = None
    request_id: str | None = None


class DomainFieldValue(ResponseModel):
    """A common facet value, and the approximate number of products with this value."""

    value: str | None = None
    label: str | None = None
    count: int | None = None


class DomainField(ResponseModel):
    """A facet in a catalog. `coverage` is the share of products with this facet."""

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
    """The distribution of current prices in a catalog."""

    populated: int | None = None
    median: float | None = None
    below: int | None = None
    above: int | None = None
    buckets: list[PriceBucket] | None = None


class DomainCatalogCoverage(ResponseModel):
    """A catalog for a shop's host. `computed_at` is kept as the service sent it."""

    catalog: str = Field(min_length=1)
    catalog_display_name: str | None = None
    product_count: Int64 | None = None
    computed_at: str | None = None
    fields: list[DomainField] | None = None
    price: PriceDistribution | None = None


class DomainCoverageResponse(ResponseModel):
    """The catalogs for a shop's host."""

    host: str | None = None
    catalogs: list[DomainCatalogCoverage] = Field(default_factory=list)


class MeKey(ResponseModel):
    """Information about the API key, without the secret. `prefix` is safe to show."""

    id: str | None = None
    prefix: str | None = None
    source: str | None = None


class MeOrganization(ResponseModel):
    """The API key's organization. Access to the API requires the type `catalog_partner`."""

    id: str | None = None
    name: str | None = None
    slug: str | None = None
    type: str | None = None


class MeQuotas(ResponseModel):
    """The organization's quotas, whose fields Octogen does not document."""


class MeRateLimit(ResponseModel):
    """The organization's rate limit: requests per minute, remaining requests and reset time."""

    limit: Int64 | None = None
    remaining: Int64 | None = None
    reset_at: UtcDatetime | None = None


class MeResponse(ResponseModel):
    """The API key's account and limits. `rate_limit` is None if rate limiting is off."""

    principal: str | None = None
    key: MeKey | None = None
    organization: MeOrganization | None = None
    quotas: MeQuotas | None = None
    rate_limit: MeRateLimit | None = None

    @model_validator(mode="after")
    def _is_account(self) -> Self:
        # A proxy might answer {}, which must not pass for an accepted key.
        if self.principal is None and self.key is None and self.organization is None:
            raise ValueError("it must contain a principal, key or organization")
        return self
