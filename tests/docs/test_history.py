"""The recipes of docs/history.md read a history in DuckDB and dbt."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import duckdb
import pytest

from tests.docs.blocks import BLOCKS
from tests.docs.dbt import make_project, run, upstream
from tests.histories import day, make_history, product


@pytest.fixture(autouse=True)
def _history(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    sold_out = product("dress", 96.0, in_stock=False)
    days = {
        day(1): [product("dress", 120.0), product("hat", 20.0)],
        day(2): [product("dress", 96.0), product("hat", 22.0)],
        day(3): [sold_out],
        day(4): [{**sold_out, "title": "Linen dress"}],
    }
    make_history(Path("snapshots"), days)
    make_history(Path("snapshots"), {day(2): [product("coat", 200.0)]}, catalog="zen")


def blocks(language: str, title: str = "", page: str = "docs/history.md") -> list[str]:
    wanted = (page, language, title)
    return [each.source for each in BLOCKS if (each.page, each.language, each.title) == wanted]


def test_an_asset_compares_with_last_week() -> None:
    [source] = blocks("python", "cheaper.py")
    names: dict[str, Any] = {"__name__": "cheaper"}
    exec(source, names)
    cheaper = names["cheaper_than_last_week"]()
    assert cheaper.columns[-3:] == ["current_price", "current_price_last_week", "currency"]


@pytest.mark.slow
def test_the_view_and_the_macro_know_the_past() -> None:
    view, queries = blocks("sql")
    as_of = queries.removesuffix(";\n")
    with duckdb.connect() as connection:
        connection.execute(view)

        def prices(moment: str) -> dict[str, float]:
            rows = connection.sql(f"SELECT uuid, current_price FROM as_of('{moment}')")
            return dict(rows.fetchall())

        assert prices("2026-11-01") == {}
        assert prices("2026-11-01 06:00") == {"dress": 120.0, "hat": 20.0}
        assert prices("2026-11-02 05:59:59") == {"dress": 120.0, "hat": 20.0}
        assert prices("2026-11-03") == {"dress": 96.0, "hat": 22.0, "coat": 200.0}
        assert prices("2026-11-05") == {"dress": 96.0, "coat": 200.0}
        on_the_second = as_of.replace("2026-11-01", "2026-11-02")
        assert connection.sql(on_the_second).fetchall() == [("acme", "EUR", 2, 70.0)]


@pytest.mark.long
def test_dbt_has_the_history_as_a_source_in_the_graph(dbt: Path) -> None:
    [source] = blocks("yaml", "models/sources.yml", page="docs/recipes.md")
    [model] = blocks("sql", "models/price_drops.sql")
    make_project({"price_drops": model}, source)
    run(dbt, "build", "--profiles-dir", ".")
    with duckdb.connect("shop.duckdb") as connection:
        rows = connection.sql("SELECT title, old_price, new_price FROM price_drops").fetchall()
    assert rows == [("Dress", 120.0, 96.0)]
    assert upstream(dbt) == "octogen_products_history"
