"""What Octogen adds to a product."""

from octogen_dagster.sandbox.data.catalog import make_catalog
from octogen_dagster.sandbox.rest.enrichment import enrichment

ARCADE = make_catalog("grand-arcade", 300, seed=1)
PRODUCTS = [ARCADE.product(index) for index in range(300)]


def test_attributes_are_told_in_three_ways() -> None:
    for product in PRODUCTS:
        added = enrichment(product)
        assert {name: [value] for name, value in product.attributes.items()} == added["attributes"]
        assert added["attribute_handles"].keys() == product.attributes.keys()
        for attribute in added["structured_attributes"]:
            (value,) = attribute["values"]
            assert added["attribute_handles"][attribute["handle"]] == [value["handle"]]
            assert added["attributes"][attribute["handle"]] == [value["name"]]


def test_a_brand_is_described_with_all_24_fields() -> None:
    brands = [enrichment(p)["canonical_brand"] for p in PRODUCTS if p.brand is not None]
    assert all(len(brand["brand_enrichment"]) == 24 for brand in brands)
    assert len({brand["brand_uuid"] for brand in brands}) > 20
    assert all(enrichment(p)["brand_id"] is None for p in PRODUCTS if p.brand is None)
