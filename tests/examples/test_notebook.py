"""The notebooks in examples/ run from their first cell to their last."""

from __future__ import annotations

import os
import shutil
from datetime import datetime, timedelta, timezone
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from octogen_dagster import ProductSearch, scan_products
from octogen_dagster.sandbox.server import Sandbox
from tests.histories import make_history

EXAMPLES = Path(__file__).parents[2] / "examples"


def read(name: str) -> nbformat.NotebookNode:
    notebook: nbformat.NotebookNode = nbformat.read(  # type: ignore[no-untyped-call]
        EXAMPLES / name, as_version=4
    )
    return notebook


def run(notebook: nbformat.NotebookNode, folder: Path) -> list[dict[str, str]]:
    """Run a notebook in a folder, and return what its cells show, by type."""
    NotebookClient(notebook, resources={"metadata": {"path": str(folder)}}).execute()
    return [
        output["data"]
        for cell in notebook.cells
        if cell.cell_type == "code"
        for output in cell.outputs
        if "data" in output
    ]


@pytest.mark.parametrize("name", ["notebook.ipynb", "history.ipynb"])
def test_a_notebook_is_stored_without_results(name: str) -> None:
    cells = read(name).cells
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in cells)


@pytest.mark.slow
@pytest.mark.world
def test_the_notebook_shows_catalogs_products_and_prices(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with Sandbox(catalogs={"northpeak": 300, "acme": 40}) as sandbox:
        for name, value in sandbox.environment.items():
            monkeypatch.setenv(name, value)
        shown = run(read("notebook.ipynb"), tmp_path)
    catalogs, jackets, brands, prices, snapshot = (each["text/plain"] for each in shown)
    assert "northpeak" in catalogs
    assert "Jacket" in jackets
    assert "median_price" in brands
    assert "█" in prices
    assert snapshot.endswith("23)")


@pytest.mark.slow
@pytest.mark.world
def test_the_notebook_of_a_history_draws_prices_and_stock(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Its picture goes to the folder that the environment variable OCTOGEN_SCREENSHOTS names."""
    first, days = datetime(2026, 11, 1, 6, tzinfo=timezone.utc), {}
    search = ProductSearch(catalogs=["northpeak"])
    with Sandbox(catalogs={"northpeak": 300}) as sandbox:
        for name, value in sandbox.environment.items():
            monkeypatch.setenv(name, value)
        for number in range(30):
            days[first + timedelta(days=number)] = scan_products(search).collect()
            sandbox.next_day()
    make_history(tmp_path / "snapshots", days, "northpeak")
    monkeypatch.setenv("OCTOGEN_SNAPSHOTS", "snapshots")
    rows, prices, stock = run(read("history.ipynb"), tmp_path)
    assert "appeared" in rows["text/plain"]
    assert all(column in prices["text/html"] for column in ("current_price", "2026-11-30"))
    assert all(column in stock["text/html"] for column in ("in_stock", "2026-11-30"))
    picture = tmp_path / "history.png"
    assert picture.stat().st_size > 10_000
    if screenshots := os.environ.get("OCTOGEN_SCREENSHOTS"):
        shutil.copy(picture, screenshots)
