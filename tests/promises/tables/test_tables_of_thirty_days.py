"""Thirty days of catalogs, their changes and their history, in tables that equal the snapshots."""

from __future__ import annotations

import random
import signal
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from octogen_dagster.history.files import forget_snapshot
from tests.forked import processes
from tests.promises.tables.table_runs import (
    CATALOGS,
    Project,
    assert_same_rows,
    expected_rows,
    load_in_process,
    product,
    products_frame,
)
from tests.warehouses import Row, Warehouse

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

BEGIN = datetime(2026, 11, 1, 6, tzinfo=UTC)
DAYS = 30
NEW_COLUMN_FROM, WITHDRAWN_FROM, EMPTY_ON = 15, 20, 18
FORGOTTEN_ON, KILLED_ON = (10, 17), (7, 16, 24)
TABLES = ("products", "products_changes", "products_history")


class Shops:
    """Three catalogs whose products change from day to day."""

    def __init__(self) -> None:
        self.random = random.Random(31)
        self.products: dict[str, dict[int, Row]] = {
            catalog: {number: {"price": float(number)} for number in range(12)}
            for catalog in CATALOGS.get_partition_keys()
        }

    def snapshot(self, catalog: str, day: int) -> pl.DataFrame:
        at = BEGIN + timedelta(days=day)
        rows = [
            product(number, each["price"], at, catalog_key=catalog)
            for number, each in self.products[catalog].items()
        ]
        extra = {"margin": pl.lit(float(day))} if day >= NEW_COLUMN_FROM else {}
        return products_frame([] if catalog == "lodge" and day >= EMPTY_ON else rows, **extra)

    def change(self, catalog: str) -> None:
        products = self.products[catalog]
        for number in self.random.sample(sorted(products), 2):
            products[number]["price"] += 1
        if self.random.random() < 0.5:
            products.pop(self.random.choice(sorted(products)))
        if self.random.random() < 0.7:
            products[max(products) + 1] = {"price": 5.0}


class Expected:
    """What each table must have: the rows that were published, by what they replace."""

    def __init__(self, project: Project) -> None:
        self._project = project
        self._rows: dict[str, dict[Any, list[Row]]] = {table: {} for table in TABLES}

    def note(self, catalog: str, at: datetime) -> None:
        for table in TABLES:
            stored = self._project.stored(table, catalog)
            own: Row = {"partition": catalog}
            if table == "products_changes":
                own["fetched_at"] = at
                if self._project.stored(partition=catalog).is_empty():
                    continue  # there are no changes, and no time that they could be of
            self._rows[table][catalog, own.get("fetched_at")] = expected_rows(stored, **own)

    def check(self, warehouse: Warehouse) -> None:
        for table, by_part in self._rows.items():
            assert_same_rows(
                warehouse.rows(table), [row for rows in by_part.values() for row in rows]
            )


@pytest.mark.long
def test_tables_equal_the_snapshots_after_thirty_days(warehouse: Warehouse, tmp_path: Path) -> None:
    shops = Shops()
    project = Project(tmp_path, warehouse.destination, CATALOGS, related=True)
    expected = Expected(project)
    for day in range(1, DAYS + 1):
        open_catalogs = ["acme", "lodge", "strada"] if day < WITHDRAWN_FROM else ["acme", "lodge"]
        catalog = shops.random.choice(open_catalogs)
        if day == EMPTY_ON:
            catalog = "lodge"
        shops.change(catalog)
        project.store(shops.snapshot(catalog, day), catalog)
        if shops.random.random() < 0.2 and day not in KILLED_ON:
            continue  # a late day: the tables follow with the next one
        at = BEGIN + timedelta(days=day)
        if day in KILLED_ON:
            killed = processes.Process(
                target=load_in_process,
                args=(str(tmp_path), warehouse.location, catalog, shops.random.randrange(1, 12)),
            )
            killed.start()
            killed.join()
            assert killed.exitcode in (0, -signal.SIGKILL)
        project.load(catalog)
        expected.note(catalog, at)
        if shops.random.random() < 0.3:  # a run that is repeated
            for table in TABLES:
                assert project.load_metadata(catalog, table)["octogen/loaded"] is False
        if day in FORGOTTEN_ON:
            forget_snapshot(str(tmp_path), at, asset="products_history")
            assert project.load_metadata(catalog, "products_history")["octogen/loaded"] is True
            expected.note(catalog, at)
        if day % 10 == 0:
            expected.check(warehouse)
    expected.check(warehouse)
    assert {row["partition"] for row in warehouse.rows("products")} == {"acme", "strada"}
    assert {row["partition"] for row in warehouse.rows("products_changes")} == {
        "acme",
        "lodge",
        "strada",
    }
