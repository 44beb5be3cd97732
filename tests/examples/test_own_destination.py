"""examples/own_destination: a destination outside of the package, in Python and in YAML.

The tests of tables run with it as with each built-in destination: `tests/warehouses.py` has it.
"""

import sqlite3
from contextlib import closing
from pathlib import Path

import dagster as dg
import pytest
import sqlite_tables

from octogen_dagster import ParquetSnapshotIOManager
from octogen_dagster.components import OctogenComponent
from octogen_dagster.errors import OctogenComponentError


def test_the_asset_of_the_example_loads_its_snapshot_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for is_new in (True, False):
        result = dg.materialize(
            [sqlite_tables.numbers, sqlite_tables.table],
            selection=[*([sqlite_tables.numbers] if is_new else []), sqlite_tables.table],
            resources={"io_manager": ParquetSnapshotIOManager(base_dir="snapshots")},
        )
        (event,) = result.asset_materializations_for_node("numbers_table")
        assert event.metadata["octogen/loaded"].value is is_new
    with closing(sqlite3.connect("numbers.sqlite")) as connection:
        rows = connection.execute("SELECT * FROM numbers ORDER BY number").fetchall()
    assert rows == [(1, "[1]"), (2, "[4]"), (3, "[9]")]


def component(settings: object) -> OctogenComponent:
    tables = {"destination": {"sqlite_tables.SQLiteTables": settings}}
    attributes = {"searches": [{"name": "boots", "tables": tables}]}
    return OctogenComponent.from_attributes_dict(attributes=attributes)


@pytest.mark.parametrize("settings", [{"path": "shop.sqlite"}, "shop.sqlite"])
def test_yaml_names_the_destination_by_its_path(settings: object) -> None:
    (search,) = component(settings).searches
    assert search.tables
    assert isinstance(search.tables.destination, sqlite_tables.SQLiteTables)
    assert search.tables.destination.path == "shop.sqlite"


def test_a_mistake_in_its_settings_has_its_field() -> None:
    with pytest.raises(OctogenComponentError) as raised:
        component({"pth": "shop.sqlite"})
    assert "destination.sqlite_tables.SQLiteTables.pth" in str(raised.value)
    assert "Did you mean 'path'?" in str(raised.value)
