"""What follows is made again for what came while it was made, and not twice, by a real daemon."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import dagster as dg
import polars as pl
import pytest
from dagster._core.scheduler.instigation import TickStatus

from octogen_dagster.sandbox.server import Sandbox
from tests.daemon.processes import dagster, wait_until

LOCATION = """
import time
from pathlib import Path
import dagster as dg
from octogen_dagster import follow_upstream

shops = dg.StaticPartitionsDefinition(["acme"])

def made_from(source, name):
    version = Path(source).read_text()
    Path(f"{name}.begun").touch()
    while not Path(f"{name}.may-end").exists():
        time.sleep(0.05)
    Path(f"{name}.version").write_text(version)

@dg.asset(partitions_def=shops)
def products(): ...

@dg.asset(partitions_def=shops, deps=[products], automation_condition=follow_upstream())
def history():
    made_from("products.version", "history")

@dg.asset(deps=[products, history], automation_condition=follow_upstream())
def page():
    made_from("history.version", "page")

defs = dg.Definitions(
    assets=[products, history, page],
    sensors=[
        dg.AutomationConditionSensorDefinition(
            "follow",
            target="*",
            minimum_interval_seconds=1,
            default_status=dg.DefaultSensorStatus.RUNNING,
        )
    ],
    executor=dg.in_process_executor,
)
"""

PRICES = """
import dagster as dg
import octogen_dagster as od
from octogen_dagster.alerts import PriceDropped

follow = {"automation_condition": od.follow_upstream()}
products = od.build_products_asset("products", partitions_def=od.catalog_partitions)
history = od.build_product_history_asset(products, **follow)
running = {"minimum_interval_seconds": 1, "default_status": dg.DefaultSensorStatus.RUNNING}
defs = dg.Definitions(
    assets=[
        products,
        history,
        od.build_product_changes_asset(history, **follow),
        od.build_product_brands_asset(products, **follow),
        od.build_price_alerts_asset(history, [PriceDropped(percent=5)], **follow),
    ],
    sensors=[
        od.build_catalog_sensor(products, **running),
        dg.AutomationConditionSensorDefinition("follow", target="*", **running),
    ],
    resources={
        "octogen": od.OctogenResource(catalog_source=od.GrantedCatalogs()),
        "io_manager": od.ParquetSnapshotIOManager(base_dir="snapshots"),
    },
    executor=dg.in_process_executor,
)
"""


@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_day_without_a_change_is_one_run_and_a_day_with_one_is_all(tmp_path: Path) -> None:
    with (
        Sandbox(catalogs={"strada": 30}, generation="seed") as shop,
        dagster(tmp_path, PRICES, shop.environment) as running,
    ):

        def made() -> Counter[str]:
            """The materializations of each asset."""
            return Counter(
                {
                    key.to_user_string(): len(
                        running.instance.fetch_materializations(key, 99).records
                    )
                    for key in running.instance.all_asset_keys()
                }
            )

        def wait_for(**expected: int) -> None:
            wait_until(
                lambda: made() == {f"products{name}": n for name, n in expected.items()}, made
            )
            running.wait_for_rest()
            assert made() == {f"products{name}": n for name, n in expected.items()}

        derived = ("_history", "_changes", "_brands", "_alerts")
        running.start_code_server()
        running.start_daemon()
        wait_for(**{"": 1}, **dict.fromkeys(derived, 1))
        shop.touch("strada")
        wait_for(**{"": 2}, **dict.fromkeys(derived, 1))
        rows = pl.read_parquet(tmp_path / "snapshots" / "products" / "strada.parquet")
        shop.set_price(rows["product_url"][0], 1.0)
        shop.touch("strada")
        wait_for(**{"": 3}, **dict.fromkeys(derived, 2))


@pytest.mark.long
@pytest.mark.timeout(900)
def test_what_came_while_it_was_made_is_followed_and_nothing_twice(tmp_path: Path) -> None:
    with dagster(tmp_path, LOCATION, {}) as running:
        instance = running.instance

        def runs() -> Counter[tuple[str, str]]:
            return Counter(
                (key.to_user_string(), run.status.value)
                for run in instance.get_runs()
                for key in run.asset_selection or ()
            )

        def publish(version: str) -> None:
            (tmp_path / "products.version").write_text(version)
            event = dg.AssetMaterialization("products", partition="acme")
            instance.report_runless_asset_event(event)

        def wait_for(name: str) -> None:
            wait_until((tmp_path / name).exists, runs)

        def wait_for_runs(**made: int) -> None:
            expected = {(name, "SUCCESS"): number for name, number in made.items()}
            wait_until(lambda: runs() == expected, runs)

        def wait_for_ticks() -> None:
            before = sum(running.ticks(TickStatus.SKIPPED))
            wait_until(lambda: sum(running.ticks(TickStatus.SKIPPED)) >= before + 2, runs)

        (tmp_path / "history.version").write_text("0")
        (tmp_path / "page.may-end").touch()
        (tmp_path / "history.may-end").touch()
        for name, partition in (("products", "acme"), ("history", "acme"), ("page", None)):
            event = dg.AssetMaterialization(name, partition=partition)
            instance.report_runless_asset_event(event)
        running.start_code_server()
        running.start_daemon()
        wait_until(lambda: sum(running.ticks(TickStatus.SKIPPED)) >= 2, runs)

        # The page, which is made beside the history, has read the old one.
        for name in ("page.may-end", "history.may-end"):
            (tmp_path / name).unlink()
        publish("1")
        wait_for("page.begun")
        (tmp_path / "history.may-end").touch()
        wait_until(lambda: runs()["history", "SUCCESS"] == 1, runs)
        wait_for_ticks()  # its run is in progress
        (tmp_path / "page.may-end").touch()
        wait_for_runs(history=1, page=2)
        assert (tmp_path / "page.version").read_text() == "1"

        # The history has read a snapshot when the next one is published.
        for name in ("history.may-end", "history.begun"):
            (tmp_path / name).unlink()
        publish("2")
        wait_for("history.begun")
        publish("3")
        (tmp_path / "history.may-end").touch()
        wait_until(lambda: (tmp_path / "page.version").read_text() == "3", runs)
        wait_for_ticks()
        assert runs()["history", "SUCCESS"] == 3
