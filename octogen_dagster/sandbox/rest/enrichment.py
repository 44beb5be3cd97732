"""What Octogen adds to a merchant's data, in snake_case as in the contract."""

import uuid
from typing import Any

from octogen_dagster.sandbox.data.brands import origin_country, quality_score
from octogen_dagster.sandbox.data.product import Product
from octogen_dagster.sandbox.data.text import slug_of
from octogen_dagster.sandbox.data.verticals import Brand
from octogen_dagster.sandbox.data.vocabulary import COLORS

Json = dict[str, Any]


def enrichment(product: Product) -> Json:
    """Return the enrichment of a product."""
    kind, color, brand = product.kind, product.color, product.brand
    attributes = product.attributes
    path = " > ".join(kind.category_path)
    classification = {"gender": _present(product.gender), "age_group": [*product.age_groups]}
    return {
        "type": kind.noun,
        "type_synonyms": [kind.noun.lower(), kind.category_path[-1].lower()],
        "tags": [product.style],
        "styles": [product.style],
        "gender": product.gender,
        "age_groups": list(product.age_groups),
        "color": _present(color.name if color else None),
        "color_family": _present(color.family if color else None),
        "color_indices": [COLORS.index(color)] if color else [],
        "category_path": list(kind.category_path),
        "classification": classification if kind.gendered else {},
        "fully_qualified_name": path,
        "taxonomy_uuid": str(uuid.uuid5(uuid.NAMESPACE_URL, path)),
        "attributes": {name: [value] for name, value in attributes.items()},
        "attribute_handles": {
            name: [_value_handle(name, value)] for name, value in attributes.items()
        },
        "structured_attributes": [
            {
                "handle": name,
                "name": name.replace("_", " ").capitalize(),
                "values": [{"handle": _value_handle(name, value), "name": value}],
            }
            for name, value in attributes.items()
        ],
        "is_activewear": kind.is_activewear,
        "image_with_single_product": product.image_count == 1,
        "summary": f"{product.adjective} {kind.noun.lower()} in a {product.style} style.",
        "brand_id": _brand_uuid(brand) if brand else None,
        "canonical_brand": _canonical_brand(brand) if brand else None,
    }


def _present(value: str | None) -> list[str]:
    return [] if value is None else [value]


def _value_handle(attribute: str, value: str) -> str:
    return f"{attribute}__{slug_of(value)}"


def _brand_uuid(brand: Brand) -> str:
    address = f"https://octogen.example/brands/{slug_of(brand.name)}"
    return str(uuid.uuid5(uuid.NAMESPACE_URL, address))


def _canonical_brand(brand: Brand) -> Json:
    return {
        "brand_uuid": _brand_uuid(brand),
        "brand_name": brand.name,
        "brand_slug": slug_of(brand.name),
        "brand_synonyms": list(brand.spellings),
        "brand_enrichment": _brand_enrichment(brand),
    }


def _brand_enrichment(brand: Brand) -> Json:
    country = origin_country(brand)
    return {
        "brand_accessibility_index": "widely available",
        "brand_community_perception": "trusted",
        "brand_craft_production": "small batches",
        "brand_description": f"{brand.name} is a brand from {country}.",
        "brand_popularity_level": "niche",
        "brand_popularity_trend_direction": "rising",
        "brand_positioning": "premium",
        "brand_quality_justification": "long-lasting materials",
        "brand_quality_score": quality_score(brand),
        "directory_subheading": f"From {country}",
        "domain": f"{slug_of(brand.name)}.example",
        "facet_brand_cultural_anchors": ["craft"],
        "facet_brand_ethics": ["fair wages"],
        "facet_brand_hype_cycle_stage": ["established"],
        "facet_brand_inclusivity": [],
        "facet_key_people_names": ["Inès Okafor"],
        "facet_key_people_nationalities": [country],
        "facet_origin_country": country,
        "facet_price_tier": "mid",
        "facet_style_identity": ["minimal", "classic"],
        "facet_sustainability": ["recycled materials"],
        "facet_target_audience": "adults",
        "founded_year": 1950 + len(brand.name),
        "occasion_fit": "everyday",
    }
