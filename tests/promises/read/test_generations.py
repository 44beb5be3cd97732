"""What the older contract names works with its service and with today's."""

from __future__ import annotations

import dagster as dg
import pytest

import octogen_dagster as od
from octogen_dagster.api.search import FacetName
from octogen_dagster.sandbox.server import Sandbox
from tests.projects import Project

pytestmark = pytest.mark.parametrize(
    "generation", ["current", pytest.param("seed", marks=pytest.mark.seed)]
)


def test_the_operations_of_a_resource_work(
    generation: str, octogen: od.OctogenResource, shops: Sandbox
) -> None:
    assert ("OCTOGEN_SHOP_HOSTS" in shops.environment) is (generation == "current")
    listed = {each.catalog: each.product_count for each in octogen.list_catalogs()}
    assert listed == {"northpeak": 230, "strada": 120}
    first = octogen.search_products(catalog="strada", limit=100)
    second = octogen.search_products(catalog="strada", limit=100, cursor=first.next_cursor)
    assert (len(first.items), len(second.items), second.next_cursor) == (100, 20, None)
    male = od.Facet(name=FacetName.GENDER, values=["male"])
    found = octogen.search_products(catalog="strada", q="boots", facets=[male], price_max=900.0)
    assert 0 < len(found.items) < 120
    assert all(item.current_price and item.current_price <= 900 for item in found.items)
    for item in first.items[:3]:
        product = octogen.lookup_product(item.product_url)
        assert (product.catalog_key, product.product.uuid) == ("strada", item.uuid)


def test_catalogs_become_partitions_with_products_and_details(
    generation: str, project: Project, instance: dg.DagsterInstance
) -> None:
    catalogs = od.build_catalogs_asset(partitions_def=od.catalog_partitions)
    products = od.build_products_asset("products", partitions_def=od.catalog_partitions)
    details = od.build_product_details_asset(products)
    project.run([catalogs])
    assert set(instance.get_dynamic_partitions("octogen_catalogs")) == {"northpeak", "strada"}
    project.run([products, details], partition_key="strada")
    uuids = [
        project.read(name, "strada")["uuid"].n_unique()
        for name in ("products", details.key.path[-1])
    ]
    assert uuids == [120, 120]
    context = dg.build_sensor_context(instance, resources={"octogen": project.octogen})
    tick = od.build_catalog_sensor(products)(context)
    assert isinstance(tick, dg.SensorResult)
    assert [each.partition_key for each in tick.run_requests or ()] == ["northpeak"]
