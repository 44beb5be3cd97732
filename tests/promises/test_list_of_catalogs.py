"""A read asks once for its catalogs, and once more only to see if one was indexed meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest

from octogen_dagster import (
    CatalogList,
    CatalogSource,
    CatalogState,
    GrantedCatalogs,
    OctogenClient,
    OctogenResource,
    ParquetSnapshotIOManager,
    ProductScan,
    ProductSearch,
    ShopCatalogs,
    build_products_asset,
    catalog_partitions,
    scan_products,
)
from tests.api.servers import KEY, RawServer, Received, http, page
from tests.api.shops import catalog_of_shop, shop

STAMP = "2026-11-25T10:00:00Z"
LISTED = {"catalog": "acme", "displayName": "Acme", "sourceBaseUrl": None, "productCount": 2}
SHOPS = ShopCatalogs(hosts=["acme.example"])
SEARCHES = ["/products/search", "/products/search"]


class OwnSource(CatalogSource):
    """A source that does not say when its catalogs were indexed, and asks the service for them."""

    async def fetch(self, client: OctogenClient) -> CatalogList:
        coverage = await client.get_domain("acme.example")
        return CatalogList([CatalogState(each.catalog) for each in coverage.catalogs])


@contextmanager
def serving(stamp: str | None, computed_at: str | None = STAMP) -> Iterator[RawServer]:
    """A service that has all routes of both generations, and one catalog of two pages."""

    def respond(request: Received) -> list[bytes]:
        match request.target:
            case "/v1/catalogs":
                return http(body=[{**LISTED, "lastIndexedAt": stamp}])
            case "/v1/domains/acme.example":
                return shop("acme.example", catalog_of_shop("acme", 2, computedAt=computed_at))
            case "/v1/products/search":
                is_first = "cursor" not in request.json
                return http(body=page(["first"], "2") if is_first else page(["second"]))
        return http(404, {"detail": "Not Found"})

    with RawServer(respond) as server:
        yield server


def paths(server: RawServer) -> list[str]:
    return [request.target.removeprefix("/v1") for request in server.received]


def of_products(octogen: OctogenResource, folder: Path) -> None:
    materialize(build_products_asset("products"), octogen, folder)


def of_a_partition(octogen: OctogenResource, folder: Path) -> None:
    asset = build_products_asset("products", partitions_def=catalog_partitions)
    materialize(asset, octogen, folder, partition="acme")


def of_an_own_asset(octogen: OctogenResource, folder: Path) -> None:
    @dg.asset
    def products(octogen: OctogenResource) -> ProductScan:
        return octogen.scan(ProductSearch())

    materialize(products, octogen, folder)


def of_a_frame(octogen: OctogenResource, folder: Path) -> None:
    frame = scan_products(
        ProductSearch(), api_key=KEY, base_url=octogen.base_url, catalogs=octogen.catalogs
    )
    assert isinstance(frame, pl.LazyFrame)
    assert len(frame.collect()) == 2


def materialize(
    asset: dg.AssetsDefinition, octogen: OctogenResource, folder: Path, partition: str | None = None
) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        if partition:
            instance.add_dynamic_partitions("octogen_catalogs", [partition])
        dg.materialize(
            [asset],
            resources={
                "octogen": octogen,
                "io_manager": ParquetSnapshotIOManager(base_dir=str(folder)),
            },
            instance=instance,
            partition_key=partition,
        )


READS = [of_products, of_a_partition, of_an_own_asset, of_a_frame]


@pytest.mark.parametrize("read", READS)
def test_the_list_is_asked_for_once_before_the_read_and_once_after_it(
    read: Any, tmp_path: Path
) -> None:
    with serving(STAMP) as server:
        read(OctogenResource(api_key=KEY, base_url=server.base_url), tmp_path)
        assert paths(server) == ["/catalogs", *SEARCHES, "/catalogs"]


@pytest.mark.parametrize("read", READS)
@pytest.mark.parametrize(
    ("source", "computed_at", "path"),
    [
        (SHOPS, STAMP, "/domains/acme.example"),
        (SHOPS, "yesterday", "/domains/acme.example"),
        (OwnSource(), STAMP, "/domains/acme.example"),
        (GrantedCatalogs(), STAMP, "/catalogs"),
    ],
    ids=["shops", "shops without a time", "an own source", "a list without times"],
)
def test_a_source_that_has_no_index_times_is_asked_once(
    read: Any, source: CatalogSource, computed_at: str, path: str, tmp_path: Path
) -> None:
    with serving(None, computed_at) as server:
        octogen = OctogenResource(api_key=KEY, base_url=server.base_url, catalogs=source)
        read(octogen, tmp_path)
        assert paths(server) == [path, *SEARCHES]
