"""The service's requests and responses as pydantic models.

Both generations of the contract have the same models: an image that arrives as a string or as an
object becomes a `ProductImage`. Fields that the service adds later are kept in `model_extra`.
"""

from __future__ import annotations

import sys
from datetime import datetime, timezone

if sys.version_info >= (3, 11):
    from enum import StrEnum
else:
    from backports.strenum import StrEnum
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    model_validator,
)
from pydantic.alias_generators import to_camel
from typing_extensions import Self

MAX_PAGE_SIZE = 100


class FacetName(StrEnum):
    """Facets that every catalog has. Any product attribute, such as `fit`, is a facet name too."""

    BRAND_NAME = "brand_name"
    BRAND_SLUG = "brand_slug"
    RAW_BRAND_NAME = "raw_brand_name"
    PRODUCT_TYPE = "product_type"
    GENDER = "gender"
    AGE_GROUPS = "age_groups"
    COLOR = "color"
    COLOR_FAMILY = "color_family"
    IS_ACTIVEWEAR = "is_activewear"
    CATEGORY_PATH_DEPTH_0 = "category_path.depth_0"
    CATEGORY_PATH_DEPTH_1 = "category_path.depth_1"
    CATEGORY_PATH_DEPTH_2 = "category_path.depth_2"
    CATEGORY_PATH_DEPTH_3 = "category_path.depth_3"
    CATEGORY_PATH_DEPTH_4 = "category_path.depth_4"
    CATEGORY_PATH_DEPTH_5 = "category_path.depth_5"
    CATEGORY_PATH_DEPTH_6 = "category_path.depth_6"


class Gender(StrEnum):
    """Values of the facet `gender`."""

    MALE = "male"
    FEMALE = "female"
    UNISEX = "unisex"


class AgeGroup(StrEnum):
    """Values of the facet `age_groups`."""

    INFANT = "infant"
    TODDLER = "toddler"
    KIDS = "kids"
    ADULT = "adult"


class ColorFamily(StrEnum):
    """Values of the facet `color_family`."""

    PINK = "Pink"
    RED = "Red"
    ORANGE = "Orange"
    BROWN = "Brown"
    YELLOW = "Yellow"
    GREEN = "Green"
    BLUE = "Blue"
    PURPLE = "Purple"
    WHITE = "White"
    GRAY = "Gray"
    BLACK = "Black"


_Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]


class Facet(BaseModel):
    """A filter that keeps products whose facet `name` has any of `values`, ignoring case."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: _Text = Field(description="A FacetName, or a product attribute such as fit.")
    values: list[_Text] = Field(min_length=1, description="A product needs one of these.")


Price = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class SearchFilters(BaseModel):
    """The filters of a search, without the catalog and the page.

    Raises:
        pydantic.ValidationError: A field is out of its range; the message names the field.
    """

    model_config = ConfigDict(extra="forbid")

    q: str | None = Field(
        default=None,
        min_length=1,
        description="Keywords; None keeps all products that match the filters.",
    )
    facets: list[Facet] = Field(
        default_factory=list,
        max_length=50,
        description="Filters; a product must match all of them.",
    )
    price_min: Price | None = Field(default=None, description="Lowest current price, inclusive.")
    price_max: Price | None = Field(default=None, description="Highest current price, inclusive.")

    @model_validator(mode="after")
    def _check(self) -> Self:
        low, high = self.price_min, self.price_max
        if low is not None and high is not None and low > high:
            raise ValueError(f"price_min {low} is above price_max {high}: swap them")
        names = [facet.name.lower() for facet in self.facets]
        if repeated := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(
                f"facets name {', '.join(repeated)} more than once: put all values in one facet"
            )
        return self


class SearchRequest(SearchFilters):
    """The body of a `POST /products/search`: a search and one of its pages."""

    catalog: str | None = Field(default=None, min_length=1, pattern=r"\S")
    cursor: str | None = Field(default=None, min_length=1)
    limit: int = Field(default=50, ge=1, le=MAX_PAGE_SIZE)

    def body(self) -> dict[str, Any]:
        """The JSON object to send, without the fields that are not set."""
        body = self.model_dump(mode="json", exclude_none=True)
        if not self.facets:
            del body["facets"]
        return body

    def following(self, cursor: str) -> Self:
        """The request of the page that a cursor leads to."""
        return self.model_copy(update={"cursor": cursor})


def _as_utc(value: datetime) -> datetime:
    return (
        value.replace(tzinfo=timezone.utc)
        if value.tzinfo is None
        else value.astimezone(timezone.utc)
    )


UtcDatetime = Annotated[datetime, AfterValidator(_as_utc)]


class _ResponseModel(BaseModel):
    model_config = ConfigDict(
        alias_generator=to_camel,
        populate_by_name=True,
        extra="allow",
        coerce_numbers_to_str=True,
        allow_inf_nan=False,
    )


class MerchantCatalogSummary(_ResponseModel):
    """A catalog that the API key may read."""

    catalog: str = Field(min_length=1)
    display_name: str
    source_base_url: str | None = None
    product_count: int
    last_indexed_at: UtcDatetime | None = None


class ProductBrand(_ResponseModel):
    """The brand as the merchant shows it."""

    name: str | None = None
    slug: str | None = None
    url: str | None = None
    description: str | None = None


Int64 = Annotated[int, Field(ge=-(2**63), lt=2**63)]


class ProductRating(_ResponseModel):
    """The average and the number of the merchant's ratings."""

    average: float | None = None
    count: Int64 | None = None


class ProductImage(_ResponseModel):
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


class MerchantProductListItem(_ResponseModel):
    """A product of a search page. Only the current generation has the fields after `is_active`."""

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
    is_active: bool | None = None
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


class MerchantProductListPage(_ResponseModel):
    """One page of a search."""

    items: list[MerchantProductListItem]
    next_cursor: str | None = None
    request_id: str | None = None
    effective_query: Any = None

    @property
    def uuids(self) -> list[str]:
        """The uuids of the products, in order."""
        return [item.uuid for item in self.items]


class ProductCategory(_ResponseModel):
    """A category or breadcrumb of the merchant's site."""

    name: str | None = None
    url: str | None = None


class ProductColor(_ResponseModel):
    """A colour on offer."""

    label: str | None = None
    swatch_url: str | None = None
    hex_code: str | None = None


def _as_color(value: Any) -> Any:
    return {"label": value} if isinstance(value, str) else value


class ProductVariant(_ResponseModel):
    """A variant that can be bought."""

    sku: str | None = None
    product_url: str | None = None
    color: Annotated[ProductColor, BeforeValidator(_as_color)] | None = None
    size: str | None = None
    in_stock: bool | None = None
    image_url: str | None = None


class ProductDetails(_ResponseModel):
    """The product's materials, fit, dimensions and patterns."""

    materials: list[str] | None = None
    fit: list[str] | None = None
    dimensions: str | None = None
    patterns: list[str] | None = None


class ProductAudience(_ResponseModel):
    """The genders and age groups that the product is for."""

    genders: list[str] | None = None
    age_groups: list[str] | None = None


class ProductIdentifiers(_ResponseModel):
    """Identifiers of the merchant and of the trade."""

    product_id: str | None = None
    gtin: str | None = None
    product_group_id: str | None = None


class ProductPromotion(_ResponseModel):
    """A promotion of the product."""

    description: str | None = None
    code: str | None = None


class ProductReview(_ResponseModel):
    """A customer's review of the product."""

    author: str | None = None
    rating: float | None = None
    body: str | None = None
    published_at: UtcDatetime | None = None


class ProductVideo(_ResponseModel):
    """A video of the product."""

    url: str | None = None
    thumbnail_url: str | None = None
    name: str | None = None


class _SnakeCaseModel(BaseModel):
    model_config = ConfigDict(extra="allow", coerce_numbers_to_str=True)


class CanonicalBrand(_SnakeCaseModel):
    """The brand as Octogen knows it; `brand_name` facets filter by it."""

    brand_uuid: str | None = None
    brand_name: str | None = None
    brand_slug: str | None = None


class ProductEnrichment(_SnakeCaseModel):
    """The fields that Octogen derives for a product, snake_case in JSON."""

    type: str | None = None
    tags: list[str] | None = None
    styles: list[str] | None = None
    gender: str | None = None
    age_groups: list[str] | None = None
    color: list[str] | None = None
    color_family: list[str] | None = None
    category_path: list[str] | None = None
    attributes: dict[str, list[str]] | None = None
    summary: str | None = None
    canonical_brand: CanonicalBrand | None = None


class MerchantProductView(MerchantProductListItem):
    """The full view of a product. A product that is not in the index has no uuid."""

    uuid: str | None = None  # type: ignore[assignment]
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


class MerchantProductUrlLookupResponse(_ResponseModel):
    """The response to a lookup by product URL."""

    catalog_key: str | None = None
    catalog_display_name: str | None = None
    source_base_url: str | None = None
    product: MerchantProductView
