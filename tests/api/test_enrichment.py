from __future__ import annotations

from octogen_dagster.api.enrichment import CanonicalBrand, ProductAttribute, ProductEnrichment


def test_its_fields_are_snake_case_on_the_wire() -> None:
    enrichment = ProductEnrichment.model_validate(
        {
            "type_synonyms": ["sneaker"],
            "typeSynonyms": ["not a field"],
            "is_activewear": True,
            "color_indices": [3, 4],
            "classification": {"sport": ["running"]},
            "structured_attributes": [
                {"handle": "fit", "name": "Fit", "values": [{"handle": "slim", "name": "Slim"}]}
            ],
            "canonical_brand": {
                "brand_uuid": "b-1",
                "brand_synonyms": ["ACME"],
                "brand_enrichment": {"founded_year": 1901, "brand_quality_score": 4},
            },
        }
    )
    assert enrichment.type_synonyms == ["sneaker"]
    assert (enrichment.is_activewear, enrichment.color_indices) == (True, [3, 4])
    assert enrichment.classification == {"sport": ["running"]}
    assert enrichment.model_extra == {"typeSynonyms": ["not a field"]}
    assert enrichment.structured_attributes is not None
    (attribute,) = enrichment.structured_attributes
    assert (attribute.handle, attribute.name) == ("fit", "Fit")
    assert attribute.values is not None
    (value,) = attribute.values
    assert (value.handle, value.name) == ("slim", "Slim")
    brand = enrichment.canonical_brand
    assert brand is not None
    assert (brand.brand_uuid, brand.brand_synonyms) == ("b-1", ["ACME"])
    assert brand.brand_enrichment is not None
    assert brand.brand_enrichment.founded_year == 1901
    assert brand.brand_enrichment.brand_quality_score == 4.0


def test_everything_may_be_absent_or_null() -> None:
    for model in (ProductEnrichment, CanonicalBrand, ProductAttribute):
        empty = model()
        nulls = dict.fromkeys(model.model_fields)
        assert model.model_validate(nulls) == empty
        assert set(dict(empty).values()) == {None}
