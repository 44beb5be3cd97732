"""The coverage of a host, checked against the products themselves."""

from collections import Counter

from octogen_dagster.sandbox.data.catalog import make_catalog
from octogen_dagster.sandbox.rest.domains import domain_coverage

CATALOG = make_catalog("fjord.field", 300, seed=1)
PRODUCTS = [CATALOG.product(index) for index in range(300)]


def test_values_of_a_facet_are_counted() -> None:
    (snapshot,) = domain_coverage("fjordfield.example", [CATALOG])["catalogs"]
    field = next(field for field in snapshot["fields"] if field["name"] == "gender")
    genders = Counter(product.gender for product in PRODUCTS if product.gender)
    assert {v["value"]: v["count"] for v in field["topValues"]} == genders
    assert field["populated"] == genders.total()
    assert field["coverage"] == round(genders.total() / 300, 3)
    assert (field["distinct"], field["truncated"]) == (3, False)


def test_many_values_are_cut_and_said_to_be() -> None:
    (snapshot,) = domain_coverage("fjordfield.example", [CATALOG])["catalogs"]
    field = next(field for field in snapshot["fields"] if field["name"] == "product_type")
    assert len(field["topValues"]) == 10
    assert field["truncated"]
    counts = [value["count"] for value in field["topValues"]]
    assert counts == sorted(counts, reverse=True)
    assert all(value["value"] == value["label"].lower() for value in field["topValues"])


def test_fields_are_ordered_by_source_and_coverage() -> None:
    (snapshot,) = domain_coverage("fjordfield.example", [CATALOG])["catalogs"]
    order = [
        (["product", "enrichment", "brands"].index(field["source"]), -field["coverage"])
        for field in snapshot["fields"]
    ]
    assert order == sorted(order)
    assert all(field["populated"] for field in snapshot["fields"])


def test_every_price_is_in_one_part_of_the_histogram() -> None:
    (snapshot,) = domain_coverage("fjordfield.example", [CATALOG])["catalogs"]
    price = snapshot["price"]
    counted = price["below"] + price["above"] + sum(b["count"] for b in price["buckets"])
    assert counted == price["populated"] == sum(p.current_price is not None for p in PRODUCTS)
    edges = [bucket["min"] for bucket in price["buckets"]]
    assert edges[1:] == [bucket["max"] for bucket in price["buckets"]][:-1]
    assert edges[0] <= price["median"] <= price["buckets"][-1]["max"]


def test_large_catalogs_are_estimated() -> None:
    (snapshot,) = domain_coverage("x", [make_catalog("northpeak", 1_000_000, seed=1)])["catalogs"]
    assert snapshot["productCount"] == 1_000_000
    assert 900_000 < snapshot["price"]["populated"] < 1_000_000


def test_an_empty_catalog_has_neither_fields_nor_prices() -> None:
    (snapshot,) = domain_coverage("x", [make_catalog("northpeak", 0, seed=1)])["catalogs"]
    assert (snapshot["productCount"], snapshot["fields"], snapshot["price"]) == (0, [], None)
    assert snapshot["computedAt"]
