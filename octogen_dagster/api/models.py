"""The service's responses as pydantic models.

Both generations of the contract have the same models: an image that arrives as a string or as an
object becomes a `ProductImage`. Fields that the service adds later are kept in `model_extra`.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field, model_validator

from octogen_dagster.api.enrichment import ProductEnrichment
from octogen_dagster.api.response_model import Int64, ResponseModel, UtcDatetime


class MerchantCatalogSummary(ResponseModel):
    """A catalog that the API key may read."""

    catalog: str = Field(min_length=1)
    display_name: str
    source_base_url: str | None = None
    product_count: int
    last_indexed_at: UtcDatetime | None = None


class ProductBrand(ResponseModel):
    """The brand as the merchant shows it."""

    name: str | None = None
    slug: str | None = None
    url: str | None = None
    description: str | None = None


class ProductRating(ResponseModel):
    """The average and the number of the merchant's ratings."""

    average: float | None = None
    count: Int64 | None = None


class ProductImage(ResponseModel):
    """An image. The seed generation of the service sends only its URL."""

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
    """A product of a search page. Only the current generation has the fields after `is_active`.

    `is_active` is true if the service does not send it, and None if it sends null: unknown.
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
    """One page of a search. The current generation may leave out `items` or send null."""

    items: list[MerchantProductListItem]
    next_cursor: str | None = None
    request_id: str | None = None
    effective_query: Any = None

    @model_validator(mode="before")
    @classmethod
    def _without_items(cls, page: Any) -> Any:
        # An object with neither is no page. It must not be read as an empty catalog.
        is_page = isinstance(page, dict) and ("items" in page or "effectiveQuery" in page)
        if is_page and page.get("items") is None:
            return {**page, "items": []}
        return page

    @property
    def uuids(self) -> list[str]:
        """The uuids of the products, in order."""
        return [item.uuid for item in self.items]


class ProductCategory(ResponseModel):
    """A category or breadcrumb of the merchant's site."""

    name: str | None = None
    url: str | None = None


class ProductColor(ResponseModel):
    """A colour on offer."""

    label: str | None = None
    swatch_url: str | None = None
    hex_code: str | None = None


def _as_color(value: Any) -> Any:
    return {"label": value} if isinstance(value, str) else value


class ProductVariant(ResponseModel):
    """A variant that can be bought."""

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
    """The genders and age groups that the product is for."""

    genders: list[str] | None = None
    age_groups: list[str] | None = None


class ProductIdentifiers(ResponseModel):
    """Identifiers of the merchant and of the trade."""

    product_id: str | None = None
    gtin: str | None = None
    product_group_id: str | None = None


class ProductPromotion(ResponseModel):
    """A promotion of the product."""

    description: str | None = None
    code: str | None = None
    promotion_id: str | None = None


class ProductReview(ResponseModel):
    """A customer's review of the product."""

    author: str | None = None
    rating: float | None = None
    body: str | None = None
    published_at: UtcDatetime | None = None


class ProductVideo(ResponseModel):
    """A video of the product."""

    url: str | None = None
    thumbnail_url: str | None = None
    name: str | None = None


class MerchantProductView(MerchantProductListItem):
    """The full view of a product. A product that is not in the index has no uuid."""

    uuid: str | None = None  # type: ignore[assignment]
    # A product that is not in the index is neither active nor inactive in it.
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
    """How a product that is not in the index was read from its page."""

    method: str | None = None
    completeness: str | None = None
    rendered: bool | None = None
    missing_fields: list[str] | None = None


class MerchantProductUrlLookupResponse(ResponseModel):
    """The response to a lookup by product URL.

    Only the current generation has the fields after `product`. A `source` other than `indexed`
    means that no catalog has the product and that its data comes from its page.
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
