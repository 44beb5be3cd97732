"""Tables while runs are killed, run at the same time and are read: once, whole, or not at all."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.forked import processes
from tests.promises.tables.table_runs import (
    CATALOGS,
    Project,
    assert_same_rows,
    count_statements,
    expected_rows,
    load_in_process,
    load_interrupted,
    partitions_of,
    product,
    products_frame,
)
from tests.warehouses import ENGINES, Row, Warehouse

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

DAY = datetime(2026, 11, 1, 6, tzinfo=UTC)
OLD, NEW = 30, 20
_TIMEOUT = 300


def published(project: Project, catalog: str, rows: int, price: float) -> list[Row]:
    """Publish products of a catalog, and return the rows that the table is to have."""
    frame = products_frame(
        [product(number, price, DAY, catalog_key=catalog) for number in range(rows)]
    )
    project.store(frame, catalog)
    return expected_rows(project.stored(partition=catalog), partition=catalog)


@contextmanager
def reading(warehouse: Warehouse, seen: set[tuple[int, float | None]]) -> Iterator[None]:
    """Read a catalog again and again, and note how many rows there are and at which price."""
    ended = threading.Event()
    failed: list[Exception] = []
    partition = warehouse.quoted("partition")
    count = (
        "SELECT count(*) AS number, min(current_price) AS low, max(current_price) AS high "
        f"FROM {warehouse.schema}.products WHERE {partition} = 'acme'"
    )

    def read() -> None:
        while not ended.wait(0.01):
            try:
                (row,) = warehouse.query(count)
            except Exception as error:
                if not seen:  # there is no table yet
                    continue
                failed.append(error)
                return
            assert row["low"] == row["high"]
            seen.add((row["number"], row["low"]))

    thread = threading.Thread(target=read)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
    assert not failed, failed


@pytest.mark.long
def test_a_killed_load_leaves_the_old_or_the_new_rows_and_its_retry_the_new_ones(
    warehouse: Warehouse, tmp_path: Path
) -> None:
    base, location = str(tmp_path), warehouse.location
    project = Project(tmp_path, warehouse.destination, CATALOGS)
    other = published(project, "strada", 5, 1.0)
    project.load("strada")
    old = published(project, "acme", OLD, 1.0)
    project.load("acme")
    new = published(project, "acme", NEW, 2.0)
    statements = count_statements(base, warehouse.destination, "acme")
    assert statements > 4
    seen: set[tuple[int, float | None]] = set()
    with reading(warehouse, seen):
        for number in range(1, statements + 1):
            old, new = new, published(project, "acme", OLD if number % 2 else NEW, number + 2.0)
            killed = processes.Process(
                target=load_in_process, args=(base, location, "acme", number)
            )
            killed.start()
            killed.join(_TIMEOUT)
            assert killed.exitcode == -signal.SIGKILL, number
            found = warehouse.rows("products")
            rows = [row for row in found if row["partition"] == "acme"]
            assert_same_rows(rows, new if len(rows) == len(new) else old)
            loaded = project.load_metadata("acme")
            assert loaded["dagster/partition_row_count"] == len(new), (number, loaded)
            assert_same_rows(warehouse.rows("products"), [*other, *new])
    assert {number for number, _ in seen} <= {OLD, NEW}


@pytest.mark.long
def test_a_first_load_may_be_killed_at_any_statement(warehouse: Warehouse, tmp_path: Path) -> None:
    base, location = str(tmp_path), warehouse.location
    project = Project(tmp_path, warehouse.destination, CATALOGS)
    expected = published(project, "acme", NEW, 1.0)
    number = 0
    while True:
        number += 1
        first = processes.Process(target=load_in_process, args=(base, location, "acme", number))
        first.start()
        first.join(_TIMEOUT)
        if first.exitcode == 0:
            break
        assert first.exitcode == -signal.SIGKILL
        if number % 4 == 0:
            project.load("acme")
            assert_same_rows(warehouse.rows("products"), expected)
            warehouse.execute(f"DROP TABLE {warehouse.schema}.products")
    assert_same_rows(warehouse.rows("products"), expected)
    assert number > 4


@pytest.mark.long
@pytest.mark.parametrize("is_first", [True, False])
def test_one_catalog_twice_at_once_has_each_row_once(
    is_first: bool, warehouse: Warehouse, tmp_path: Path
) -> None:
    project = Project(tmp_path, warehouse.destination, CATALOGS)
    if not is_first:
        published(project, "acme", OLD, 1.0)
        project.load("acme")
    expected = published(project, "acme", NEW, 2.0)
    at_once(tmp_path, warehouse, ["acme", "acme", "acme"])
    assert_same_rows(warehouse.rows("products"), expected)
    assert project.load_metadata("acme")["octogen/loaded"] is False


@pytest.mark.long
@pytest.mark.parametrize(
    "warehouse", [pytest.param("snowflake", marks=ENGINES["snowflake"].marks)], indirect=True
)
def test_idle_transaction_ended_by_snowflake_has_each_row_once(
    warehouse: Warehouse, tmp_path: Path
) -> None:
    project = Project(tmp_path, warehouse.destination, CATALOGS)
    published(project, "acme", OLD, 1.0)
    project.load("acme")
    published(project, "acme", NEW, 2.0)
    statements = count_statements(str(tmp_path), warehouse.destination, "acme")
    for number in range(1, statements + 1):
        expected = published(project, "acme", NEW, number + 2.0)
        load_interrupted(
            str(tmp_path),
            warehouse.destination,
            "acme",
            number,
            lambda: at_once(tmp_path, warehouse, ["acme"]),
        )
        assert_same_rows(warehouse.rows("products"), expected)


@pytest.mark.long
def test_two_catalogs_at_once_spoil_nothing(warehouse: Warehouse, tmp_path: Path) -> None:
    project = Project(tmp_path, warehouse.destination, CATALOGS)
    seen: set[tuple[int, float | None]] = set()
    expected: dict[str, list[Row]] = {}
    with reading(warehouse, seen):
        for price in (1.0, 2.0, 3.0):
            expected["acme"] = published(project, "acme", OLD if price == 2 else NEW, price)
            expected["strada"] = published(project, "strada", 7, price)
            at_once(tmp_path, warehouse, ["acme", "strada"])
            assert_same_rows(
                warehouse.rows("products"), [row for rows in expected.values() for row in rows]
            )
    assert seen <= {(0, None), (NEW, 1.0), (OLD, 2.0), (NEW, 3.0)}
    assert partitions_of(warehouse.rows("products")) == {"acme": NEW, "strada": 7}


def at_once(folder: Path, warehouse: Warehouse, catalogs: Sequence[str]) -> None:
    """Load catalogs in processes that run at the same time, and all succeed."""
    runs = [
        processes.Process(
            target=load_in_process, args=(str(folder), warehouse.location, catalog, None)
        )
        for catalog in catalogs
    ]
    for run in runs:
        run.start()
    for run in runs:
        run.join(_TIMEOUT)
    assert [run.exitcode for run in runs] == [0] * len(runs)
