"""The numbers of a materialization agree with each other, and with what the service was asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from octogen_ai_sdk.generated.models import MerchantProductListItem

from octogen_dagster import (
    NamedCatalogs,
    OctogenResource,
    ParquetSnapshotIOManager,
    ProductSearch,
    ShopCatalogs,
    build_product_details_asset,
    build_products_asset,
)
from tests.api.servers import KEY
from tests.published_service import PublishedService


def shown(result: dg.ExecuteInProcessResult, node: str) -> dict[str, Any]:
    (event,) = result.asset_materializations_for_node(node)
    return {name.removeprefix("octogen/"): each.value for name, each in event.metadata.items()}


@pytest.mark.parametrize("concurrency", [1, 8], ids=["one walk", "several walks"])
def test_pages_requests_and_charges_of_a_read_are_those_of_the_service(
    tmp_path: Path, concurrency: int
) -> None:
    uuids = [f"{number:05}" for number in range(500)]
    service = PublishedService(
        {"acme": uuids},
        brands={uuid: f"brand {int(uuid) % 12}" for uuid in uuids},
        hosts={"acme.example": ["acme"]},
        counts={"acme": 500},
    )

    @dg.asset
    def products(octogen: OctogenResource) -> Any:
        return octogen.scan(ProductSearch(page_size=5))

    with service.running():
        octogen = OctogenResource(
            api_key=KEY,
            base_url=service.base_url,
            concurrency=concurrency,
            catalogs=ShopCatalogs(hosts=["acme.example"]),
        )
        io_manager = ParquetSnapshotIOManager(base_dir=str(tmp_path))
        result = dg.materialize(
            [products], resources={"octogen": octogen, "io_manager": io_manager}
        )
    numbers = shown(result, "products")
    searches = len(service.searches)
    assert (numbers["walks"] > 1) is (concurrency > 1)
    assert numbers["dagster/row_count"] == 500
    assert numbers["pages"] in (searches, searches - 1)  # page 1 of the whole before several walks
    assert numbers["charged_requests"] == searches
    assert numbers["cost_usd"] == pytest.approx(0.014 * searches)
    assert numbers["requests"] == len(service.received)


def test_lookups_are_charged_and_counted(tmp_path: Path) -> None:
    service = PublishedService({"acme": ["1", "2", "3"]})
    products = build_products_asset("products")
    details = build_product_details_asset(products, name="details")
    with service.running():
        octogen = OctogenResource(
            api_key=KEY, base_url=service.base_url, catalogs=NamedCatalogs(["acme"])
        )
        io_manager = ParquetSnapshotIOManager(base_dir=str(tmp_path))
        result = dg.materialize(
            [products, details], resources={"octogen": octogen, "io_manager": io_manager}
        )
        numbers = shown(result, "details")
        assert numbers["requests"] == numbers["charged_requests"] == len(service.lookups) == 3
        assert numbers["cost_usd"] == pytest.approx(0.006)


PRICES = [("EUR", 10.0), ("EUR", 30.0), ("JPY", 4_000.0), ("EUR", 20.0), (None, 7.0)]


class PricedService(PublishedService):
    """A published service whose products have prices."""

    def search(self, body: dict[str, Any]) -> tuple[int, Any]:
        status, page = super().search(body)
        for item, (currency, price) in zip(page["items"], PRICES, strict=True):
            item["currentPrice"] = price
            if currency:
                item["currency"] = currency
            MerchantProductListItem.model_validate(item)
        return status, page


def test_a_price_is_plotted_once_for_each_currency(tmp_path: Path) -> None:
    service = PricedService({"acme": [str(number) for number in range(len(PRICES))]})
    with service.running():
        octogen = OctogenResource(
            api_key=KEY, base_url=service.base_url, catalogs=NamedCatalogs(["acme"])
        )
        io_manager = ParquetSnapshotIOManager(base_dir=str(tmp_path))
        result = dg.materialize(
            [build_products_asset("products")],
            resources={"octogen": octogen, "io_manager": io_manager},
        )
    numbers = shown(result, "products")
    plotted = {
        name: value
        for name, value in numbers.items()
        if name.startswith("price") and isinstance(value, int | float)
    }
    assert plotted == {
        "price_p50_eur": 20.0,
        "price_p50_jpy": 4_000.0,
        "price_p50_no_currency": 7.0,
    }
    quantiles = numbers["price_quantiles"]
    assert quantiles.keys() == {"eur", "jpy", "no_currency"}
    assert quantiles["eur"] == {"p05": 10.0, "p25": 20.0, "p50": 20.0, "p75": 30.0, "p95": 30.0}
