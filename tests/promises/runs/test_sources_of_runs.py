"""Runs and ticks with each source of catalogs, on a service that has no list of catalogs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest

import octogen_dagster as od
from tests.api.servers import (
    KEY,
    RawServer,
    Received,
    catalog_of_shop,
    http,
    page_of,
    shop,
    unlisted,
)
from tests.results import failure, materialized, metadata

PRODUCTS = {"acme": 3, "outlet": 2, "zen": 1, "elsewhere": 4}
SHOPS = od.ShopCatalogs(hosts=["acme.example", "zen.example"])
NAMED = od.NamedCatalogs(keys=["zen", "acme"])


class Service:
    """A service of the current generation, whose pages have one product each.

    Attributes:
        shops: The answers of its shops, by host; a test may change them.
        fails_at: The cursor of a page that it fails to serve.
        cursors: The cursors of the pages that it served.
        server: The server.
    """

    fails_at: str | None = "none"

    def __init__(self) -> None:
        self.shops: dict[str, Any] = {
            "acme.example": shop(
                "acme.example", catalog_of_shop("acme", 3), catalog_of_shop("outlet", 2)
            ),
            "zen.example": shop("zen.example", catalog_of_shop("zen", 1)),
        }
        self.cursors: list[str | None] = []
        self.server: RawServer = unlisted(self.search, self.shops)

    def search(self, request: Received) -> list[bytes]:
        body = request.json
        if "catalog" in body:
            detail = [{"loc": ["body", "catalog"], "msg": "not permitted", "type": "extra"}]
            return http(422, {"detail": detail})
        cursor = body.get("cursor")
        if cursor == self.fails_at:
            return http(500)
        self.cursors.append(cursor)
        keys = body.get("catalogs") or sorted(PRODUCTS)
        uuids = [f"{key}-{number}" for key in keys for number in range(PRODUCTS.get(key, 0))]
        return http(body=page_of(uuids, body | {"limit": 1}))

    def octogen(
        self, catalogs: od.CatalogSource | None = None, **settings: Any
    ) -> od.OctogenResource:
        return od.OctogenResource(
            api_key=KEY,
            base_url=self.server.base_url,
            attempts=1,
            catalog_source=catalogs or od.GrantedCatalogs(),
            **settings,
        )

    def paths(self) -> list[str]:
        return [request.target.removeprefix("/v1") for request in self.server.received]


@pytest.fixture
def service() -> Iterator[Service]:
    service = Service()
    with service.server:
        yield service


def read_products(
    folder: Path,
    octogen: od.OctogenResource,
    instance: dg.DagsterInstance,
    search: od.ProductSearch | None = None,
    partition: str | None = None,
    **options: Any,
) -> dg.ExecuteInProcessResult:
    if partition:
        instance.add_dynamic_partitions("octogen_catalogs", [partition])
    products = od.build_products_asset(
        "products", search, od.catalog_partitions if partition else None, retry_policy=None
    )
    return materialized(
        [products], folder, octogen, instance=instance, partition_key=partition, **options
    )


def rows(folder: Path) -> dict[str, int]:
    """The number of products of each catalog in the snapshot."""
    (path,) = folder.rglob("*.parquet")
    uuids = pl.read_parquet(path)["uuid"].to_list()
    keys = [uuid.rsplit("-", 1)[0] for uuid in uuids]
    return {key: keys.count(key) for key in sorted(set(keys))}


def lines(instance: dg.DagsterInstance, result: dg.ExecuteInProcessResult) -> list[str]:
    return [record.user_message for record in instance.all_logs(result.run_id)]


def test_a_whole_search_reads_the_catalogs_of_the_shops(
    tmp_path: Path, service: Service, instance: dg.DagsterInstance
) -> None:
    result = read_products(tmp_path, service.octogen(SHOPS), instance)
    assert rows(tmp_path) == {"acme": 3, "outlet": 2, "zen": 1}
    paths = service.paths()
    assert sorted(paths[:2]) == ["/domains/acme.example", "/domains/zen.example"]
    assert set(paths[2:]) == {"/products/search"}
    progress = [line for line in lines(instance, result) if line.startswith("The search: ")]
    assert progress[-1].startswith("The search: 6 of 6 products in 6 pages")
    assert metadata(result, "products")["dagster/row_count"] == 6


def test_a_whole_search_without_a_source_is_refused_before_it_costs_anything(
    tmp_path: Path, service: Service, instance: dg.DagsterInstance
) -> None:
    result = read_products(tmp_path, service.octogen(), instance, raise_on_error=False)
    text = failure(result)
    assert "the service no longer lists catalogs" in text
    assert "OctogenResource(catalog_source=ShopCatalogs(hosts=[...]))" in text
    assert "OctogenResource(catalog_source=NamedCatalogs(keys=[...]))" in text
    assert "the search would read all of Octogen" in text
    assert "`octogen-dagster estimate`" in text
    assert service.paths() == ["/catalogs"]


@pytest.mark.parametrize(
    ("search", "settings"),
    [
        (od.ProductSearch(q="boots"), {}),
        (od.ProductSearch(facets=[od.Facet(name="gender", values=["male"])]), {}),
        (od.ProductSearch(max_products=100), {}),
        (od.ProductSearch(), {"budget_usd": 1}),
    ],
)
def test_a_search_that_is_narrow_or_has_a_budget_needs_no_source(
    tmp_path: Path,
    service: Service,
    instance: dg.DagsterInstance,
    search: od.ProductSearch,
    settings: dict[str, Any],
) -> None:
    read_products(tmp_path, service.octogen(**settings), instance, search)
    assert rows(tmp_path) == PRODUCTS


@pytest.mark.parametrize("source", [None, SHOPS, NAMED])
def test_a_partition_is_read_with_any_source(
    tmp_path: Path, service: Service, instance: dg.DagsterInstance, source: od.CatalogSource | None
) -> None:
    read_products(tmp_path, service.octogen(source), instance, partition="acme")
    assert rows(tmp_path) == {"acme": 3}


@pytest.mark.parametrize("source", [SHOPS, NAMED])
def test_a_partition_that_the_source_does_not_list_is_read_all_the_same(
    tmp_path: Path, service: Service, instance: dg.DagsterInstance, source: od.CatalogSource
) -> None:
    result = read_products(tmp_path, service.octogen(source), instance, partition="elsewhere")
    assert rows(tmp_path) == {"elsewhere": 4}
    note = f"{source!r} does not list catalog 'elsewhere'."
    assert any(line.startswith(note) for line in lines(instance, result))


def test_a_keyword_search_stays_within_the_source_even_if_it_fails(
    tmp_path: Path, service: Service, instance: dg.DagsterInstance
) -> None:
    service.shops.clear()
    result = read_products(
        tmp_path,
        service.octogen(SHOPS),
        instance,
        od.ProductSearch(q="boots"),
        raise_on_error=False,
    )
    assert "None of the 2 shops could be read" in failure(result)
    assert "/products/search" not in service.paths()


def test_a_snapshot_of_all_shops_is_not_published_while_a_shop_fails(
    tmp_path: Path, service: Service, instance: dg.DagsterInstance
) -> None:
    service.shops["acme.example"] = http(503)
    result = read_products(tmp_path, service.octogen(SHOPS), instance, raise_on_error=False)
    assert "'acme.example'" in failure(result)
    assert not list(tmp_path.rglob("*.parquet"))
    assert "/products/search" not in service.paths()


def test_a_shop_that_is_not_covered_is_a_warning_and_the_others_are_read(
    tmp_path: Path, service: Service, instance: dg.DagsterInstance
) -> None:
    del service.shops["acme.example"]
    result = read_products(tmp_path, service.octogen(SHOPS), instance)
    assert rows(tmp_path) == {"zen": 1}
    warnings = [line for line in lines(instance, result) if "'acme.example'" in line]
    assert warnings
    assert warnings[0].endswith(" left out.")


def requested(service: Service, instance: dg.DagsterInstance) -> list[str]:
    """The partitions that a tick of the sensor requests."""
    sensor = od.build_catalog_sensor(
        od.build_products_asset("products", partitions_def=od.catalog_partitions)
    )
    resources = {"octogen": service.octogen(SHOPS)}
    result = sensor(dg.build_sensor_context(instance=instance, resources=resources))
    assert isinstance(result, dg.SensorResult)
    return [str(run.partition_key) for run in result.run_requests or ()]


@pytest.mark.slow
def test_a_count_that_was_computed_again_requests_a_snapshot(
    service: Service, instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    def read(*keys: str) -> None:
        for key in keys:
            read_products(tmp_path, service.octogen(SHOPS), instance, partition=key)

    assert requested(service, instance) == ["acme", "outlet", "zen"]
    read("acme", "outlet", "zen")
    assert requested(service, instance) == []
    later = catalog_of_shop("zen", 1, computedAt="2026-11-26T10:00:00Z")
    service.shops["zen.example"] = shop("zen.example", later)
    assert requested(service, instance) == ["zen"]
    read("zen")
    assert requested(service, instance) == []
    service.shops["zen.example"] = http(503)
    assert requested(service, instance) == []
