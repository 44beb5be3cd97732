"""What is published when a catalog of the current generation shrinks or matches nothing."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from octogen_ai_sdk.generated.models import MerchantProductListItem

import octogen_dagster as od
from tests.projects import Project
from tests.published_service import PublishedService
from tests.results import failure, figures, is_retried, metadata, octogen_at


def uuids(count: int) -> list[str]:
    return [f"p{number}" for number in range(count)]


@pytest.fixture
def service() -> Iterator[PublishedService]:
    """A service with one catalog of 500 products."""
    with PublishedService({"acme": uuids(500)}).running() as running:
        yield running


class Days(Project):
    """Materializations of a catalog and its changes, one after another."""

    def __init__(
        self,
        folder: Path,
        instance: dg.DagsterInstance,
        service: PublishedService,
        **arguments: Any,
    ) -> None:
        super().__init__(folder, instance, octogen_at(service))
        products = od.build_products_asset(
            "products", partitions_def=od.catalog_partitions, **arguments
        )
        history = od.build_product_history_asset(products)
        self.assets = [products, history, od.build_product_changes_asset(history)]
        instance.add_dynamic_partitions("octogen_catalogs", ["acme"])

    def materialize(self, partition: str = "acme", **config: Any) -> dg.ExecuteInProcessResult:
        return self.run(
            self.assets,
            partition_key=partition,
            run_config={"ops": {"products": {"config": config}}} if config else None,
            raise_on_error=False,
        )

    @property
    def rows(self) -> int:
        return len(self.read("products", "acme"))


@pytest.fixture
def days(tmp_path: Path, instance: dg.DagsterInstance, service: PublishedService) -> Days:
    """The days of a products asset with default settings."""
    return Days(tmp_path, instance, service)


def test_a_catalog_that_matches_nothing_on_the_second_day_keeps_its_snapshot(
    days: Days, service: PublishedService
) -> None:
    assert days.materialize().success
    del service.catalogs["acme"]
    searches = len(service.searches)

    result = days.materialize()

    assert not result.success
    message = failure(result).rstrip()
    assert message.endswith(
        "Catalog 'acme' has no products. The service returns the same response if the catalog key "
        "is mistyped, was renamed or is no longer granted. Nothing was published. Correct the key, "
        "ask Octogen about the catalog, or stop reading the catalog."
    )
    assert len(service.searches) == searches + 1  # nothing is retried
    assert not is_retried(result)
    assert days.rows == 500
    assert not result.asset_materializations_for_node("products_changes")


@pytest.mark.slow
@pytest.mark.parametrize(
    "search", [{"similar_to_brands": ["Acme"]}, {"understand": True}, {"q": " "}], ids=str
)
def test_a_whole_catalog_in_another_order_is_protected_like_any_other(
    tmp_path: Path, service: PublishedService, instance: dg.DagsterInstance, search: dict[str, Any]
) -> None:
    days = Days(tmp_path, instance, service, search=od.ProductSearch.model_validate(search))
    assert days.materialize().success

    service.catalogs["acme"] = uuids(249)
    assert "min_rows_percent is 50" in failure(days.materialize())
    del service.catalogs["acme"]
    assert "Catalog 'acme' has no products." in failure(days.materialize())
    assert days.rows == 500


@pytest.mark.slow
def test_a_catalog_that_lost_more_than_half_keeps_its_snapshot_until_that_is_accepted(
    days: Days, service: PublishedService
) -> None:
    assert days.materialize().success
    service.catalogs["acme"] = uuids(249)

    result = days.materialize()
    assert not result.success
    message = failure(result)
    assert "returned 249 products, but the latest snapshot has 500" in message
    for named in ("min_rows_percent is 50", "API key", "`accept_shrinking: true`"):
        assert named in message
    assert not is_retried(result)
    assert days.rows == 500

    accepted = days.materialize(accept_shrinking=True)
    assert accepted.success
    assert days.rows == 249
    assert metadata(accepted, "products_changes")["octogen/disappeared"] == 251


def test_the_first_snapshot_of_a_day_is_compared_with_that_of_the_day_before(
    project: Project, service: PublishedService
) -> None:
    now = datetime.now(UTC)
    today, day_before = (f"{now - timedelta(days=ago):%Y-%m-%d}" for ago in (0, 1))
    search, days = od.ProductSearch(catalogs=["acme"]), od.snapshot_days(day_before)
    products = od.build_products_asset("products", search, days, _clock=lambda: now)
    octogen = octogen_at(service)
    project.run([products], octogen, partition_key=today)
    snapshot = project.folder / "products" / f"{today}.parquet"
    snapshot.rename(snapshot.with_stem(day_before))
    service.catalogs["acme"] = uuids(249)
    message = project.failure([products], octogen, partition_key=today)
    assert "returned 249 products, but the latest snapshot has 500" in message
    assert not snapshot.exists()


def test_a_search_that_finds_nothing_is_published_and_said(
    project: Project, service: PublishedService, capfd: pytest.CaptureFixture[str]
) -> None:
    service.catalogs["acme"] = []
    products = od.build_products_asset("boots", od.ProductSearch(q="boots", catalogs=["acme"]))
    result = project.run([products], octogen_at(service))
    assert metadata(result, "boots")["octogen/empty"] is True
    assert project.read("boots").is_empty()
    assert "WARNING" in (log := capfd.readouterr().err)
    assert "'acme' returned no products" in log


def test_a_mistyped_partition_fails_with_the_catalog_of_the_shop_that_is_meant(
    tmp_path: Path, service: PublishedService, instance: dg.DagsterInstance
) -> None:
    service.hosts["shop.example"] = ["acme"]
    days = Days(tmp_path, instance, service, retry_policy=None)
    days.octogen = octogen_at(service, catalog_source=od.ShopCatalogs(hosts=["shop.example"]))
    instance.add_dynamic_partitions("octogen_catalogs", ["acmee"])
    message = failure(days.materialize("acmee"))
    assert "Catalog 'acmee' has no products." in message
    assert "Did you mean 'acme'?" in message
    assert "delete_dynamic_partition(" in message


# The numbers of a materialization agree with each other, and with what the service was asked.


@pytest.mark.parametrize("concurrency", [1, 8], ids=["one walk", "several walks"])
def test_pages_requests_and_charges_of_a_read_are_those_of_the_service(
    project: Project, concurrency: int
) -> None:
    uuids = [f"{number:05}" for number in range(500)]
    service = PublishedService(
        {"acme": uuids},
        brands={uuid: f"brand {int(uuid) % 12}" for uuid in uuids},
        hosts={"acme.example": ["acme"]},
        counts={"acme": 500},
    )

    @dg.asset
    def products(octogen: od.OctogenResource) -> Any:
        return octogen.scan(od.ProductSearch(page_size=5))

    with service.running():
        octogen = octogen_at(
            service, concurrency=concurrency, catalog_source=od.ShopCatalogs(hosts=["acme.example"])
        )
        result = project.run([products], octogen)
    numbers = figures(result, "products")
    searches = len(service.searches)
    assert (numbers["walks"] > 1) is (concurrency > 1)
    assert numbers["dagster/row_count"] == 500
    assert numbers["pages"] in (searches, searches - 1)  # page 1 of the whole before several walks
    assert numbers["charged_requests"] == searches
    assert numbers["cost_usd"] == pytest.approx(0.014 * searches)
    assert numbers["requests"] == len(service.received)


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


def test_a_price_is_plotted_once_for_each_currency(project: Project) -> None:
    service = PricedService({"acme": [str(number) for number in range(len(PRICES))]})
    with service.running():
        octogen = octogen_at(service, catalog_source=od.NamedCatalogs(["acme"]))
        result = project.run([od.build_products_asset("products")], octogen)
    numbers = figures(result, "products")
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


def test_lookups_are_charged_and_counted(project: Project) -> None:
    service = PublishedService({"acme": ["1", "2", "3"]})
    products = od.build_products_asset("products")
    details = od.build_product_details_asset(products, name="details")
    with service.running():
        octogen = octogen_at(service, catalog_source=od.NamedCatalogs(["acme"]))
        result = project.run([products, details], octogen)
        numbers = figures(result, "details")
        assert numbers["requests"] == numbers["charged_requests"] == len(service.lookups) == 3
        assert numbers["cost_usd"] == pytest.approx(0.006)
