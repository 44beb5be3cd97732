"""The changes asset in Dagster: which snapshots of a history it compares."""

import itertools
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

import octogen_dagster as od
from octogen_dagster.history.files import forget_snapshot
from tests.histories import Product, day, product
from tests.projects import GivenProducts, given_frame
from tests.results import metadata

COUNTS = ("appeared", "disappeared", "changed", "title_changed", "price_changed")
DRESS, HAT, DEARER = product("dress", 120), product("hat", 30), product("dress", 150)


class Shop(GivenProducts):
    """Products that are given, their history and their changes."""

    def __init__(self, folder: Path, instance: dg.DagsterInstance, *partitions: Any) -> None:
        super().__init__(folder, instance, *partitions)
        self.changes = od.build_product_changes_asset(self.history)
        self.following = [self.changes]

    def read_products(
        self, at: datetime, *products: Product, catalog: str | None = "acme", partition: Any = None
    ) -> None:
        self.frame = given_frame(at, products, catalog)
        self.update(self.products, partition_key=partition)

    def shown(self, partition: Any = None, catalog: str | None = None) -> dict[str, Any]:
        """Materialize the history and the changes; return the metadata of the changes."""
        self.update(self.history, partition_key=catalog)
        result = self.update(self.changes, partition_key=partition)
        return metadata(result, "octogen_products_changes")

    def rows(self, *partition: str) -> list[tuple[Any, ...]]:
        found = self.read("octogen_products_changes", *partition)
        return found.select("uuid", "change", "old_current_price", "new_current_price").rows()


def counts(shown: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(shown[f"octogen/{name}"] for name in COUNTS)


@pytest.fixture
def shop(tmp_path: Path, instance: dg.DagsterInstance) -> Shop:
    return Shop(tmp_path, instance)


def test_changes_are_those_of_the_last_snapshot(shop: Shop) -> None:
    shop.read_products(day(1), DRESS, HAT)
    first = shop.shown()
    assert first["octogen/first_snapshot"] is True
    assert counts(first) == (2, 0, 0, 0, 0)
    columns = {column.name: column for column in first["dagster/column_schema"].columns}
    assert columns["old_title"].description == "`title` in the previous snapshot."
    assert shop.changes.op.pool is None  # it sends no request to the service

    shop.read_products(day(2), DEARER)
    second = shop.shown()
    assert second["octogen/first_snapshot"] is False
    assert counts(second) == (0, 1, 1, 0, 1)
    assert shop.rows() == [("dress", "changed", 120, 150), ("hat", "disappeared", 30, None)]
    assert counts(shop.shown()) == counts(second)  # a repeated run


@pytest.mark.parametrize("again", [1, 3])
@pytest.mark.parametrize("has_history", [False, True])
def test_reading_the_same_products_again_does_not_lose_the_changes(
    shop: Shop, again: int, has_history: bool
) -> None:
    shop.read_products(day(1), DRESS, HAT)
    shop.shown()
    for number in range(2, 3 + again):
        shop.read_products(day(number), DEARER, HAT)
        if has_history:
            shop.update(shop.history)
    assert counts(shop.shown()) == (0, 0, 1, 0, 1)
    assert shop.rows() == [("dress", "changed", 120, 150)]
    forget_snapshot(str(shop.folder), day(1), asset="octogen_products_history")
    assert counts(shop.shown()) == (2, 0, 0, 0, 0)


def test_changes_of_a_history_whose_snapshots_were_all_forgotten_say_so(shop: Shop) -> None:
    shop.read_products(day(1), DRESS)
    shop.shown()
    forget_snapshot(str(shop.folder), day(1), asset="octogen_products_history")
    with pytest.raises(dg.Failure, match="The history has no snapshot"):
        shop.update(shop.changes)


@pytest.mark.parametrize("still", [(HAT,), ()])
def test_a_withdrawn_catalog_is_named_and_shows_what_differs_when_it_returns(
    shop: Shop, still: Sequence[Product]
) -> None:
    acme = [{**each, "catalog_key": "Acme"} for each in (DRESS, *still)]
    zen = {**product("lamp", 9), "catalog_key": "zen"}
    shop.read_products(day(1), *acme, zen, catalog=None)
    shop.shown()
    shop.read_products(day(2), zen, catalog=None)
    shown = shop.shown()
    assert counts(shown) == (0, 0, 0, 0, 0)
    assert shown["octogen/vanished_catalogs"] == ["acme"]
    shop.read_products(day(3), {**acme[0], "current_price": 150}, *acme[1:], zen, catalog=None)
    assert counts(shop.shown()) == (0, 0, 1, 0, 1)


@pytest.mark.parametrize("by_catalog", [False, True])
def test_a_day_is_compared_with_the_last_day_before_it(
    tmp_path: Path, instance: dg.DagsterInstance, by_catalog: bool
) -> None:
    now = datetime.now(UTC)
    days = [f"{now - timedelta(days=ago):%Y-%m-%d}" for ago in (2, 1, 0)]
    instance.add_dynamic_partitions("octogen_catalogs", ["acme"])
    shop = Shop(tmp_path, instance, (od.catalog_days if by_catalog else od.snapshot_days)(days[0]))
    catalog = "acme" if by_catalog else None
    # The second day has no snapshot.
    before, missing, today = (f"acme|{each}" if by_catalog else each for each in days)

    shop.read_products(now - timedelta(days=2), DRESS, HAT, partition=before)
    first = shop.shown(before, catalog)
    assert first["octogen/first_snapshot"] is True
    assert counts(first) == (2, 0, 0, 0, 0)
    shop.read_products(now - timedelta(hours=1), DEARER, HAT, partition=today)
    second = shop.shown(today, catalog)
    assert second["octogen/first_snapshot"] is False
    assert second["octogen/previous_partition"] == before
    assert counts(second) == (0, 0, 1, 0, 1)
    # A day that is read again is compared with the day before, not with itself.
    shop.read_products(now, DEARER, partition=today)
    again = shop.shown(today, catalog)
    assert (again["octogen/previous_partition"], counts(again)) == (before, (0, 1, 1, 0, 1))
    assert counts(shop.shown(before, catalog)) == (2, 0, 0, 0, 0)  # as it was
    with pytest.raises(dg.Failure, match=rf"no snapshot .*{re.escape(missing)}.* Materialize"):
        shop.shown(missing, catalog)


@pytest.mark.parametrize("by_catalog", [False, True])
@pytest.mark.parametrize("condition", [dg.AutomationCondition.eager(), od.follow_upstream()])
def test_changes_of_a_day_wait_for_its_snapshot_and_follow_the_history(
    tmp_path: Path, instance: dg.DagsterInstance, by_catalog: bool, condition: Any
) -> None:
    now = datetime.now(UTC)
    today, yesterday, start = (f"{now - timedelta(days=ago):%Y-%m-%d}" for ago in (0, 1, 3))
    instance.add_dynamic_partitions("octogen_catalogs", ["strada"])
    products = od.build_products_asset(
        "products", partitions_def=(od.catalog_days if by_catalog else od.snapshot_days)(start)
    )
    history = od.build_product_history_asset(products)
    changes = od.build_product_changes_asset(history, automation_condition=condition)
    io_manager = od.ParquetSnapshotIOManager(base_dir=str(tmp_path))
    resources = {"octogen": dg.ResourceDefinition.none_resource(), "io_manager": io_manager}
    defs = dg.Definitions(assets=[products, history, changes], resources=resources)
    cursor, versions = None, itertools.count()

    def requested() -> set[str | None]:
        nonlocal cursor
        result = dg.evaluate_automation_conditions(
            defs, instance, asset_selection=dg.AssetSelection.assets(changes), cursor=cursor
        )
        cursor = result.cursor
        return set(result.get_requested_partitions(changes.key))

    def made(asset: dg.AssetsDefinition, partition: str | None) -> None:
        tags = {"dagster/data_version": str(next(versions))}
        event = dg.AssetMaterialization(asset.key, partition=partition, tags=tags)
        instance.report_runless_asset_event(event)

    catalog, of = ("strada", "strada|") if by_catalog else (None, "")
    assert requested() == set()
    made(products, f"{of}{yesterday}")
    made(history, catalog)
    assert requested() == set()  # today has no snapshot yet
    made(products, f"{of}{today}")
    assert requested() == set()  # the history comes first
    made(history, catalog)
    assert requested() == {f"{of}{today}"}
    made(changes, f"{of}{today}")
    assert requested() == set()
    made(products, f"{of}{today}")
    assert requested() == set()  # the history comes first
    made(history, catalog)
    assert requested() == {f"{of}{today}"}
