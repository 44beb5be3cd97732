"""examples/notebook.ipynb runs from its first cell to its last."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from octogen_dagster.sandbox.server import Sandbox

NOTEBOOK = Path(__file__).parents[2] / "examples/notebook.ipynb"


def read() -> nbformat.NotebookNode:
    notebook: nbformat.NotebookNode = nbformat.read(  # type: ignore[no-untyped-call]
        NOTEBOOK, as_version=4
    )
    return notebook


def test_the_notebook_is_stored_without_results() -> None:
    cells = read().cells
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in cells)


@pytest.mark.slow
def test_the_notebook_shows_catalogs_products_and_prices(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    notebook = read()
    with Sandbox(catalogs={"northpeak": 300, "acme": 40}) as sandbox:
        for name, value in sandbox.environment.items():
            monkeypatch.setenv(name, value)
        NotebookClient(notebook, resources={"metadata": {"path": str(tmp_path)}}).execute()
    shown = [
        output["data"]["text/plain"]
        for cell in notebook.cells
        if cell.cell_type == "code"
        for output in cell.outputs
        if "data" in output
    ]
    catalogs, jackets, brands, prices, snapshot = shown
    assert "northpeak" in catalogs
    assert "Jacket" in jackets
    assert "median_price" in brands
    assert "█" in prices
    assert snapshot.endswith("23)")
