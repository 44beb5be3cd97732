"""An absent `isActive` of a product means true, by the default of the published model.

A null, which the published model allows, is null: the service does not know.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest
from octogen_ai_sdk.generated.models import MerchantProductListItem

from octogen_dagster import (
    OctogenClient,
    OctogenResource,
    ParquetSnapshotIOManager,
    ProductSearch,
    build_product_changes_asset,
    build_product_details_asset,
    build_products_asset,
    scan_products,
)
from tests import results
from tests.api.servers import RawServer, Received, http

SAYS: Mapping[str, dict[str, Any]] = {
    "absent": {},
    "null": {"isActive": None},
    "true": {"isActive": True},
    "false": {"isActive": False},
}
MEANS = {"absent": True, "null": None, "true": True, "false": False}


@dataclass
class Shop:
    """A service with one catalog, in which the products are listed that say something.

    Attributes:
        says: What each product says of `isActive`, by its uuid.
        generation: "seed" has a list of catalogs, and images as texts.
        others: Further fields of each product.
        lookups: The addresses that were looked up.
    """

    says: Mapping[str, dict[str, Any]]
    generation: str = "current"
    others: Mapping[str, Any] = field(default_factory=dict)
    lookups: list[str] = field(default_factory=list)

    def answer(self, request: Received) -> list[bytes]:
        match request.target:
            case "/v1/products/search":
                page = {"items": [self.product(uuid) for uuid in self.says], "nextCursor": None}
                return http(200, page)
            case "/v1/products/lookup":
                self.lookups.append(request.json["url"])
                uuid = request.json["url"].rpartition("/")[2]
                return http(200, {"catalogKey": "acme", "product": self.product(uuid)})
            case "/v1/catalogs" if self.generation == "seed":
                catalog = {"catalog": "acme", "displayName": "Acme", "productCount": len(self.says)}
                return http(200, [catalog])
            case _:
                return http(404, {"detail": "Not Found"})

    def product(self, uuid: str) -> dict[str, Any]:
        url = "https://cdn.example/1.jpg"
        images = [url if self.generation == "seed" else {"url": url}]
        product = {"uuid": uuid, "productUrl": f"https://acme.example/{uuid}", "images": images}
        return product | dict(self.others) | dict(self.says[uuid])


def test_the_published_model_says_so() -> None:
    theirs = {
        uuid: MerchantProductListItem.model_validate(Shop(SAYS).product(uuid)).is_active
        for uuid in SAYS
    }
    assert theirs == MEANS


@pytest.mark.parametrize("generation", ["seed", "current"])
@pytest.mark.parametrize(
    "others",
    [{}, {"newField": 1}, {"title": 5, "currentPrice": "12.5"}],
    ids=["plain", "of a later version", "of another JSON type"],
)
class TestListItems:
    def test_frames(self, generation: str, others: dict[str, Any]) -> None:
        with RawServer(Shop(SAYS, generation, others).answer) as server:
            search = ProductSearch(catalogs=["acme"])
            scan = scan_products(search, api_key=server.api_key, base_url=server.base_url)
            frame = scan.select("uuid", "is_active").collect()
        assert dict(frame.iter_rows()) == MEANS

    def test_the_client(self, generation: str, others: dict[str, Any]) -> None:
        async def read(server: RawServer) -> dict[str, bool | None]:
            async with OctogenClient(api_key=server.api_key, base_url=server.base_url) as client:
                products = client.iter_products(catalog="acme")
                return {product.uuid: product.is_active async for product in products}

        with RawServer(Shop(SAYS, generation, others).answer) as server:
            assert asyncio.run(read(server)) == MEANS


async def look_up(server: RawServer, url: str) -> bool | None:
    async with OctogenClient(api_key=server.api_key, base_url=server.base_url) as client:
        return (await client.lookup_product(url)).product.is_active


class TestLookups:
    @pytest.mark.parametrize("uuid", SAYS)
    def test_the_client(self, uuid: str) -> None:
        with RawServer(Shop(SAYS).answer) as server:
            found = asyncio.run(look_up(server, f"https://acme.example/{uuid}"))
        assert found is MEANS[uuid]

    @pytest.mark.parametrize("says", [{}, {"uuid": None}, {"uuid": None, "isActive": None}])
    def test_a_product_that_no_catalog_has_is_neither(self, says: dict[str, Any]) -> None:
        product = {"productUrl": "https://acme.example/1", **says}
        body = {"product": product, "source": "on_demand"}
        with RawServer(lambda _: http(200, body)) as server:
            assert asyncio.run(look_up(server, product["productUrl"])) is None


PRODUCTS = build_products_asset("products", ProductSearch(catalogs=["acme"]))
CHANGES = build_product_changes_asset(PRODUCTS)
DETAILS = build_product_details_asset(PRODUCTS, only_changed=True)


def materialize(shop: Shop, folder: Path) -> dg.ExecuteInProcessResult:
    with RawServer(shop.answer) as server:
        resources = {
            "octogen": OctogenResource(api_key=server.api_key, base_url=server.base_url),
            "io_manager": ParquetSnapshotIOManager(base_dir=str(folder)),
        }
        return dg.materialize([PRODUCTS, CHANGES, DETAILS], resources=resources)


@pytest.mark.parametrize(
    "others",
    [{}, {"newField": 1}, {"inStock": "true", "currentPrice": "12.5"}],
    ids=["plain", "of a later version", "of another JSON type"],
)
def test_details(tmp_path: Path, others: dict[str, Any]) -> None:
    materialize(Shop(SAYS, others=others), tmp_path)
    frame = pl.read_parquet(tmp_path / "products_details.parquet")
    assert set(frame.get_column("status")) == {"found"}
    assert dict(frame.select("uuid", "is_active").iter_rows()) == MEANS


class TestAfterAnUpdate:
    """Snapshots of earlier versions have null where `isActive` was absent."""

    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        before: dict[str, dict[str, Any]] = {
            "a": {"isActive": None},
            "b": {"isActive": None},
            "c": {"isActive": False},
        }
        materialize(Shop(before), tmp_path)
        stored = pl.read_parquet(tmp_path / "products.parquet")
        assert stored.get_column("is_active").to_list() == [None, None, False]
        path = tmp_path / "products_details.parquet"
        is_active = pl.field("is_active")
        listed = pl.col("listed").struct.with_fields(pl.when(~is_active).then(is_active))
        details, metadata = pl.read_parquet(path), pl.read_parquet_metadata(path)
        details.with_columns(listed).write_parquet(path, metadata=metadata)
        return tmp_path

    def test_a_product_that_says_nothing_has_not_changed_and_is_not_looked_up_again(
        self, folder: Path
    ) -> None:
        shop = Shop({"a": {}, "b": {}, "c": {"isActive": False}})
        materialize(shop, folder)
        assert pl.read_parquet(folder / "products_changes.parquet").is_empty()
        assert shop.lookups == []

    def test_a_product_that_is_no_longer_active_has(self, folder: Path) -> None:
        shop = Shop({"a": {}, "b": {"isActive": False}, "c": {"isActive": False}})
        materialize(shop, folder)
        changes = pl.read_parquet(folder / "products_changes.parquet")
        (row,) = changes.select("uuid", "changed", "old_is_active", "new_is_active").rows()
        assert row == ("b", ["availability"], True, False)
        assert shop.lookups == ["https://acme.example/b"]


def test_what_a_null_becomes_is_seen_as_from_an_active_product(tmp_path: Path) -> None:
    materialize(Shop(SAYS), tmp_path)
    shop = Shop({**SAYS, "null": {"isActive": True}, "true": {"isActive": None}})
    materialize(shop, tmp_path)
    assert pl.read_parquet(tmp_path / "products_changes.parquet").is_empty()
    assert shop.lookups == []


def test_the_columns_say_that_only_the_listing_begins_with_the_root(tmp_path: Path) -> None:
    result = materialize(Shop(SAYS), tmp_path)

    def description(asset: str, column: str) -> str:
        schema = results.metadata(result, asset)["dagster/column_schema"]
        return next(str(each.description) for each in schema.columns if each.name == column)

    for asset in ("products", "products_details"):
        assert "begins with the root" in description(asset, "category_path")
        assert "where the service does not say" in description(asset, "is_active")
    assert "leaves out the root" in description("products_details", "enrichment")
