"""The notebooks in examples/ run from their first cell to their last where Jupyter opens them.

With UPDATE_NOTEBOOKS=1 they are saved with what they show. Read the difference.
"""

from __future__ import annotations

import os
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient
from vl_convert import svg_to_png

from octogen_dagster import ProductSearch, scan_products
from octogen_dagster.sandbox.server import Sandbox
from tests.histories import make_history

EXAMPLES = Path(__file__).parents[2] / "examples"
NOTEBOOKS = ["notebook.ipynb", "history.ipynb", "prices.ipynb"]


def read(name: str) -> nbformat.NotebookNode:
    notebook: nbformat.NotebookNode = nbformat.read(  # type: ignore[no-untyped-call]
        EXAMPLES / name, as_version=4
    )
    return notebook


def code_cells(notebook: nbformat.NotebookNode) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def run(notebook: nbformat.NotebookNode, folder: Path) -> list[dict[str, str]]:
    """Run a notebook in a folder, and return what its cells show, by type."""
    NotebookClient(notebook, resources={"metadata": {"path": str(folder)}}, timeout=600).execute()
    assert not list(folder.iterdir()), "it leaves nothing where it is"
    return [
        output["data"]
        for cell in code_cells(notebook)
        for output in cell.outputs
        if "data" in output
    ]


def save(notebook: nbformat.NotebookNode, name: str) -> None:
    """Save what a notebook shows, if that is asked for, without the times of its execution."""
    if "UPDATE_NOTEBOOKS" in os.environ:
        for cell in notebook.cells:
            cell.metadata.pop("execution", None)
        nbformat.write(notebook, EXAMPLES / name)  # type: ignore[no-untyped-call]


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_is_saved_with_what_it_shows(name: str) -> None:
    cells = code_cells(read(name))
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    shown = [output for cell in cells for output in cell.outputs]
    assert {output.output_type for output in shown} == {"execute_result"}
    assert not re.search(r"/(home|root|tmp|work|Users)/|https?://cdn", repr(shown))


@pytest.mark.world
def test_the_notebook_shows_catalogs_products_and_prices(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    notebook = read("notebook.ipynb")
    shown = [each["text/plain"] for each in run(notebook, tmp_path)]
    save(notebook, "notebook.ipynb")
    catalogs, jackets, brands, prices, snapshot = shown
    assert "northpeak" in catalogs
    assert "Jacket" in jackets
    assert "median_price" in brands
    assert "█" in prices
    assert snapshot.endswith("23)")


@pytest.mark.long
def test_the_notebook_reads_the_shops_of_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with Sandbox(catalogs={"northpeak": 300, "acme": 40}) as sandbox:
        for name, value in sandbox.environment.items():
            monkeypatch.setenv(name, value)
        catalogs = run(read("notebook.ipynb"), tmp_path)[0]["text/plain"]
    assert "acme" in catalogs


@pytest.mark.world
def test_the_notebook_of_a_history_draws_a_folder_of_the_user(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Its picture goes to the folder that the environment variable OCTOGEN_SCREENSHOTS names."""
    first, days = datetime(2026, 11, 1, 6, tzinfo=UTC), {}
    search = ProductSearch(catalogs=["northpeak"])
    with Sandbox(catalogs={"northpeak": 300}) as sandbox:
        for name, value in sandbox.environment.items():
            monkeypatch.setenv(name, value)
        for number in range(30):
            days[first + timedelta(days=number)] = scan_products(search).collect()
            sandbox.next_day()
    make_history(tmp_path / "snapshots", days, "northpeak")
    monkeypatch.setenv("OCTOGEN_SNAPSHOTS", str(tmp_path / "snapshots"))
    (tmp_path / "opened").mkdir()
    catalog, rows, *pictures = run(read("history.ipynb"), tmp_path / "opened")
    assert "northpeak" in catalog["text/plain"]
    assert "appeared" in rows["text/plain"]
    prices, stock, both = (each["image/svg+xml"] for each in pictures)
    assert "Prices of" in prices
    assert "Products in stock" in stock
    if screenshots := os.environ.get("OCTOGEN_SCREENSHOTS"):
        Path(screenshots).mkdir(exist_ok=True)
        (Path(screenshots) / "history.png").write_bytes(svg_to_png(both, scale=1.25))


@pytest.mark.world
@pytest.mark.timeout(1800)
def test_the_notebook_of_a_history_plays_a_month_of_its_own(tmp_path: Path) -> None:
    notebook = read("history.ipynb")
    _, rows, *pictures = run(notebook, tmp_path)
    save(notebook, "history.ipynb")
    assert "changed" in rows["text/plain"]
    assert all("<svg" in each["image/svg+xml"] for each in pictures)
    assert len(pictures) == 3


@pytest.mark.world
@pytest.mark.timeout(1800)
def test_the_notebook_of_prices_draws_five_pictures_of_a_month(tmp_path: Path) -> None:
    notebook = read("prices.ipynb")
    rules, statuses, *pictures = run(notebook, tmp_path)
    save(notebook, "prices.ipynb")
    assert "price_dropped" in rules["text/plain"]
    assert "matched" in statuses["text/plain"]
    assert all("<svg" in each["image/svg+xml"] for each in pictures)
    assert len(pictures) == 5
