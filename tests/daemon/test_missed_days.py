"""Ten days of prices, on three of which no daemon runs a history, for each kind of snapshot."""

from __future__ import annotations

import runpy
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import polars as pl
import pytest

from octogen_dagster import scan_history
from octogen_dagster.errors import OctogenSnapshotError
from octogen_dagster.sandbox.server import Sandbox
from tests.daemon.processes import dagster, kill, wait_until
from tests.projects import QUIET
from tests.servers.bigquery import BigQueryServer, serving

LOCATION = """
from datetime import datetime, timezone
from pathlib import Path
import dagster as dg
import polars as pl
import octogen_dagster as od
from tests.histories import product
from tests.projects import given_frame
from tests.promises.sharing.linked import BIGQUERY, linked

def price():
    return float(Path("price").read_text())

@dg.asset
def table() -> pl.DataFrame:
    return pl.DataFrame({"sku": ["4711"], "price": [price()]})

@dg.asset
def frames() -> pl.DataFrame:
    return given_frame(datetime.now(timezone.utc), [product("boot", price())])

products = od.build_products_asset("products", od.ProductSearch(catalogs=["strada"]))
snapshots = od.build_linked_snapshot_asset(linked, name="snapshots", max_age=None)

def histories(suffix, **options):
    of_table = od.build_history_asset(
        table, key=["sku"], tracked=["price"], name=f"table_{suffix}", **options
    )
    of_products = (products, snapshots, frames)
    return [of_table] + [
        od.build_product_history_asset(each, name=f"{each.key.path[-1]}_{suffix}", **options)
        for each in of_products
    ]

sources = [linked, table, frames, products, snapshots]
twins = histories("twin")
followers = histories("history", automation_condition=od.follow_upstream())
resources = {
    "octogen": od.OctogenResource(),
    "io_manager": od.ParquetSnapshotIOManager(base_dir="stored"),
    **BIGQUERY,
}
defs = dg.Definitions(
    assets=[*sources, *twins, *followers],
    sensors=[
        dg.AutomationConditionSensorDefinition(
            "follow",
            target=followers,
            minimum_interval_seconds=1,
            default_status=dg.DefaultSensorStatus.RUNNING,
        )
    ],
    resources=resources,
    executor=dg.in_process_executor,
)
"""
PRICES = [10.0, 5.0, 10.0, 7.0, 12.0, 12.0, 3.0, 8.0, 9.0, 4.0]
MISSED = (4, 5, 6)
COLUMNS = ("uuid", "catalog_key", "product_url", "currency")
KINDS = ("products", "snapshots", "table", "frames")


def history(name: str) -> pl.DataFrame:
    try:
        return scan_history("stored", asset=name).sort("valid_from").collect()
    except OctogenSnapshotError:  # before its first run
        return pl.DataFrame()


@pytest.mark.long
@pytest.mark.timeout(900)
def test_histories_that_missed_three_days_of_ten_are_those_of_twins_that_missed_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    linked = BigQueryServer()
    linked.fields[:] = [
        *({"name": name, "type": "STRING"} for name in COLUMNS),
        {"name": "current_price", "type": "NUMERIC"},
        {"name": "exported_at", "type": "TIMESTAMP"},
    ]
    with (
        Sandbox(catalogs={"strada": 1}) as shop,
        serving(linked, tmp_path),
        dagster(tmp_path, LOCATION, shop.environment) as running,
    ):
        monkeypatch.chdir(tmp_path)
        for name, value in shop.environment.items():
            monkeypatch.setenv(name, value)
        location = runpy.run_path("location.py")

        def run(*names: str) -> None:
            assets = [each for name in names for each in location[name]]
            dg.materialize(
                [*location["sources"], *location["twins"]],
                selection=assets,
                resources=location["resources"],
                instance=running.instance,
                run_config=QUIET,
            )

        def behind() -> list[str]:
            """The snapshots whose histories differ from those of their twins."""
            return [
                each
                for each in KINDS
                if not history(f"{each}_history").equals(history(f"{each}_twin"))
            ]

        running.start_code_server()
        daemon = running.start_daemon()
        url = None
        for number, price in enumerate(PRICES, 1):
            Path("price").write_text(str(price))
            at = datetime(2026, 11, number, tzinfo=UTC).timestamp()
            row = ("u", "acme", "https://a.example/u", "EUR", str(price), str(int(at * 1e6)))
            linked.rows = [row]
            if url:
                shop.set_price(url, price)
            run("sources", "twins")
            url = pl.read_parquet("stored/products.parquet").item(0, "product_url")
            if number in MISSED:
                assert behind() == [*KINDS]
                continue
            if number == MISSED[-1] + 1:
                daemon = running.start_daemon()
            wait_until(lambda: not behind(), behind)
            if number == MISSED[0] - 1:
                running.wait_for_rest()
                kill(daemon)
        running.wait_for_rest()  # a history is written before its run deletes the waiting snapshot
    for each in KINDS:
        found = history(f"{each}_history")
        column = "price" if each == "table" else "current_price"
        prices = [float(price) for price in found[column]]
        assert prices[1:] == [*PRICES[1:5], *PRICES[6:]], each
    waiting = [path for path in Path("stored").glob(".*.waiting/**/*") if path.is_file()]
    assert {path.name for path in waiting} == {"reader"}
