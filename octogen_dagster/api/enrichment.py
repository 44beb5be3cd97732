"""The data that Octogen derives for a product, as pydantic models. Its JSON is in snake_case."""

from __future__ import annotations

from pydantic import ConfigDict

from octogen_dagster.api.response_model import Int64, ResponseModel


class _EnrichmentModel(ResponseModel):
    model_config = ConfigDict(alias_generator=None)


class CanonicalBrandEnrichment(_EnrichmentModel):
    """What Octogen knows about a brand: its profile, and the values of its facets."""

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
    """The brand as Octogen knows it; `brand_name` facets filter by it."""

    brand_uuid: str | None = None
    brand_name: str | None = None
    brand_slug: str | None = None
    brand_synonyms: list[str] | None = None
    brand_enrichment: CanonicalBrandEnrichment | None = None


class AttributeValue(_EnrichmentModel):
    """A value of an attribute: its handle for filters, and its name for people."""

    handle: str | None = None
    name: str | None = None


class ProductAttribute(_EnrichmentModel):
    """An attribute of the product with its values."""

    handle: str | None = None
    name: str | None = None
    values: list[AttributeValue] | None = None


class ProductEnrichment(_EnrichmentModel):
    """The data that Octogen derives for a product."""

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
