"""Who is below an own price or a floor is told once, dated by the change of either side."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest

import octogen_dagster as od
from octogen_dagster.alerts import BelowFloor, PriceDropped, Undercut
from octogen_dagster.position.table import price_position
from tests.histories import ASSET, QUIET, day, product
from tests.projects import GivenProducts, given_frame
from tests.results import metadata, stored

ALERTS = "octogen_products_price_list_alerts"
RULES = [Undercut(), Undercut(name="far_below", percent=20, by="any"), BelowFloor()]
PAGES = {"acme": "http://acme.example/dress/", "zen": "https://www.zen.example/dress?utm_source=x"}


class Shop(GivenProducts):
    """Two competitors, own prices and the alerts of these."""

    def __init__(self, folder: Path, instance: dg.DagsterInstance) -> None:
        super().__init__(folder, instance, od.catalog_partitions)
        instance.add_dynamic_partitions("octogen_catalogs", ["acme", "zen", "never"])

        @dg.asset
        def articles() -> pl.DataFrame:
            return self.own

        self.own = pl.DataFrame()
        self.articles = articles
        self.prices = od.build_history_asset(
            articles,
            key=["sku", "product_url"],
            tracked=["price", "map_price", "currency"],
        )
        self.alerts = od.build_price_alerts_asset(self.history, RULES, price_list=self.prices)
        self.checks = od.build_snapshot_checks(self.alerts, max_age=None)
        self.told: list[tuple[Any, ...]] = []

    def sell(self, at: datetime, catalog: str, price: float | None, **values: Any) -> None:
        """Store what a competitor asks for the dress as of a time."""
        url = f"https://{catalog}.example/dress"
        self.offer(at, catalog, product("dress", price, product_url=url, **values))

    def offer(self, at: datetime, catalog: str, *products: dict[str, Any]) -> None:
        """Store the products of a competitor as of a time."""
        self.frame = given_frame(at, products, catalog)
        self.update(self.products, self.history, partition_key=catalog)

    def ask(self, at: datetime, price: float) -> None:
        """Store the own price of the dress as of a time."""
        self.price(at, *(("A-1", url, price, "EUR") for url in PAGES.values()))

    def price(self, at: datetime, *rows: tuple[str, str, float | None, str | None]) -> None:
        """Store own prices as of a time: SKU, address, price and currency of each."""
        columns = ["sku", "product_url", "price", "currency"]
        own = pl.DataFrame(rows, schema=columns, orient="row", infer_schema_length=None)
        self.own = own.with_columns(map_price=70.0, fetched_at=at)
        self.run([self.articles, self.prices], run_config=QUIET)

    def tell(self) -> dict[str, Any]:
        """Bring the alerts up to date, and return what is shown of them."""
        assets = [self.products, self.history, self.articles, self.prices, self.alerts]
        self.result = self.run(
            [*assets, *self.checks], selection=[self.alerts, *self.checks], run_config=QUIET
        )
        return metadata(self.result, ALERTS)

    def events(self) -> list[tuple[Any, ...]]:
        columns = ("rule", "at", "catalog_key", "before", "after", "rank_before", "rank")
        return sorted(self.read(ALERTS).select(columns).rows(), key=lambda row: (row[1], row[0]))


@pytest.fixture
def shop(tmp_path: Path, instance: dg.DagsterInstance) -> Shop:
    shop = Shop(tmp_path, instance)
    shop.sell(day(1), "acme", 110.0)
    shop.sell(day(1), "zen", 120.0)
    shop.ask(day(1), 100.0)
    return shop


@pytest.mark.slow
def test_a_change_of_either_side_tells_who_is_below_once(shop: Shop) -> None:
    assert "octogen/events_appeared" not in shop.tell()
    shop.sell(day(2), "acme", 90.0)
    assert shop.tell()["octogen/summary"] == (
        "**1 below your price**; 2 price-list rows; 1 new event"
    )
    undercut = ("undercut", day(2), "acme", 100.0, 90.0, 1, 2)
    assert shop.events() == [undercut]
    assert not all(each.passed for each in shop.result.get_asset_check_evaluations())
    shop.sell(day(3), "zen", 65.0)
    shop.tell()
    floor = ("below_floor", day(3), "zen", 70.0, 65.0, 2, 3)
    far = ("far_below", day(3), "zen", 100.0, 65.0, 2, 3)
    assert shop.events() == [undercut, floor, far]
    shop.ask(day(4), 60.0)
    shop.ask(day(5), 95.0)
    shown = shop.tell()
    assert shown["octogen/events_appeared"] == 2
    again = ("undercut", day(5), "zen", 95.0, 65.0, 1, 3)
    assert shop.events() == [undercut, floor, far, (*("far_below", *again[1:]),), again]
    ids = shop.read(ALERTS)["alert_id"].sort()
    assert "octogen/events_appeared" not in shop.tell()
    # A later run counts the events of its own snapshots, although those of day 5 are in the newest
    # snapshot of the price list.
    shop.sell(day(6), "acme", 91.0)
    assert not {"octogen/undercut", "octogen/far_below"} & shop.tell().keys()
    checks = shop.result.get_asset_check_evaluations()
    assert all(each.passed for each in checks)
    assert "0 of 2 price-list rows" in str([each.description for each in checks])
    (shop.folder / f"{ALERTS}.parquet").unlink()
    shop.tell()
    assert shop.read(ALERTS)["alert_id"].sort().equals(ids)
    position = price_position(od.scan_history(str(shop.folder), asset=ASSET), shop.own)
    assert position["rank"].to_list() == [3, 3]
    assert position["cheapest_price"].to_list() == [65.0, 65.0]


@pytest.mark.slow
def test_a_product_that_moves_to_a_url_of_the_price_list_counts_from_then_on(shop: Shop) -> None:
    shop.tell()
    paths = ["old-dress", "dress?utm_source=x", "dress", None, "dress", "new-dress", None]
    for at, path in enumerate(paths, 2):
        url = f"https://acme.example/{path}" if path else None
        shop.offer(day(at), "acme", product("dress", 90.0, product_url=url))
        shop.tell()
    told = shop.read(ALERTS)
    assert shop.events() == [("undercut", day(3), "acme", 100.0, 90.0, 1, 2)]
    (shop.folder / f"{ALERTS}.parquet").unlink()
    shop.tell()
    assert shop.read(ALERTS).equals(told)
    history = od.scan_history(str(shop.folder), asset=ASSET)
    found = [price_position(history, shop.own, as_of=day(at))["status"][0] for at in range(1, 9)]
    assert found == ["matched", "gone", *4 * ["matched"], "gone", "gone"]


@pytest.mark.slow
def test_what_cannot_be_compared_is_no_event_and_is_counted(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    cases: dict[str, tuple[float | None, str | None, dict[str, Any]]] = {
        "no price": (None, "EUR", {}),
        "a price that is no number": (float("nan"), "EUR", {}),
        "no currency": (100.0, None, {}),
        "another currency": (100.0, "JPY", {}),
        "theirs has no currency": (100.0, "EUR", {"currency": None}),
        "theirs is no number": (100.0, "EUR", {"price": float("nan")}),
        # A page that is known to be sold out is not below, whatever its price was.
        "theirs is sold out": (100.0, "EUR", {"price": None, "in_stock": False}),
    }
    url = {sku: f"https://acme.example/{place}" for place, sku in enumerate(cases)}
    shop = Shop(tmp_path, instance)
    shop.offer(day(1), "acme", *(product(sku, 110.0, product_url=url[sku]) for sku in cases))
    shop.price(day(1), *((sku, url[sku], 100.0, "EUR") for sku in cases))
    shop.tell()
    shop.price(day(2), *((sku, url[sku], price, code) for sku, (price, code, _) in cases.items()))
    below = (
        product(sku, **{"price": 75.0, "product_url": url[sku], **theirs})
        for sku, (_, _, theirs) in cases.items()
    )
    shop.offer(day(3), "acme", *below)
    shown = shop.tell()
    assert shop.events() == []
    counted = {"unpriced": 3, "other_currency": 1, "no_currency": 1, "no_price": 1}
    assert {name: shown[f"octogen/{name}"] for name in counted} == counted


@pytest.mark.slow
def test_the_sensor_tells_them(shop: Shop) -> None:
    shop.sell(day(2), "acme", 90.0)
    shop.tell()
    told: list[dict[str, Any]] = []
    sensor = od.build_alert_sensor(shop.alerts, lambda events: told.extend(events.to_dicts()))
    with dg.build_sensor_context(shop.instance, resources=stored(shop.folder)) as context:
        sensor(context)
    (event,) = told
    assert (event["sku"], event["price"]) == ("A-1", 100.0)
    assert (event["rank_before"], event["rank"]) == (1, 2)


@pytest.mark.parametrize(
    ("rules", "has_own"),
    [([Undercut()], False), ([PriceDropped()], True), ([*RULES, PriceDropped()], True)],
)
def test_rules_of_own_prices_and_of_products_are_told_apart(
    tmp_path: Path, instance: dg.DagsterInstance, rules: list[Any], *, has_own: bool
) -> None:
    shop = Shop(tmp_path, instance)
    prices = shop.prices if has_own else None
    with pytest.raises(ValueError, match=r"Undercut and BelowFloor.* `price_list`"):
        od.build_price_alerts_asset(shop.history, rules, price_list=prices)
    with pytest.raises(ValueError, match=r"_history .* build_history_asset"):
        od.build_price_alerts_asset(shop.history, RULES, price_list=shop.history)


def test_a_floor_that_is_not_tracked_is_named(shop: Shop) -> None:
    shop.alerts = od.build_price_alerts_asset(
        shop.history, [BelowFloor(column="floor")], price_list=shop.prices
    )
    shop.checks = []
    with pytest.raises(dg.Failure, match=r"'floor'.* `tracked`"):
        shop.tell()


def test_own_prices_of_which_no_partition_is_there_yet_are_named(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    @dg.asset(partitions_def=od.catalog_partitions)
    def priced() -> None: ...

    shop = Shop(tmp_path, instance)
    shop.articles, shop.checks = priced, []
    shop.prices = od.build_history_asset(priced, key=["sku"], tracked=["price"])
    shop.alerts = od.build_price_alerts_asset(shop.history, RULES, price_list=shop.prices)
    with pytest.raises(dg.Failure, match=r"priced_history .* Materialize one first"):
        shop.tell()
