"""The demo leaves snapshots and linked datasets, and reports what failed."""

import os
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from octogen_dagster.demo.run import run_demo
from octogen_dagster.sandbox.faults import Fault
from octogen_dagster.sandbox.server import Sandbox

pytestmark = pytest.mark.slow

# Google's packages warn on standard error of a Python that they will not support much longer.
PYTHON = [sys.executable, "-W", "ignore::FutureWarning", "-c"]
PROGRAM = "from octogen_dagster.cli.main import main; main(['demo', *sys.argv[1:]])"


def run(folder: Path, *options: str, before: str = "") -> str:
    """Run `octogen-dagster demo` in a folder and return what it prints.

    Args:
        folder: The current folder of the process.
        options: The options of the command.
        before: Code to run in the process before the command.
    """
    done = subprocess.run(
        [*PYTHON, f"import sys; {before}{PROGRAM}", *options],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def without_frames(table: str) -> str:
    """The text of a table, with the cells of a column joined where a row was folded."""
    rows = [line.split("│")[1:-1] for line in table.splitlines() if "│" in line]
    return "".join(cell.strip() for column in zip(*rows, strict=False) for cell in column)


def test_each_catalog_becomes_a_file_and_a_linked_dataset(tmp_path: Path) -> None:
    output = run(tmp_path, "--catalogs", "3", "--products", "40")
    snapshots = tmp_path / "octogen-demo" / "snapshots"
    catalogs = pl.read_parquet(snapshots / "octogen_catalogs.parquet")["catalog"].to_list()
    assert len(catalogs) == 3
    for catalog in catalogs:
        assert catalog in output
        assert pl.read_parquet(snapshots / "octogen_products" / f"{catalog}.parquet").height == 40
        table = f"my-project.octogen_{catalog.replace('-', '_')}.products_current_v1"
        assert table in without_frames(output)
    assert output.count("STATE_ACTIVE") == 3
    assert f"Snapshots: {snapshots}" in output.replace("\n", "")
    assert "octogen-dagster demo --ui" in output


def test_without_mcp_there_are_snapshots_and_no_linked_datasets(tmp_path: Path) -> None:
    before = "sys.modules['mcp'] = None; "
    output = run(tmp_path, "--catalogs", "1", "--products", "3", before=before)
    assert (
        "No listings: the hub of the sandbox needs mcp: "
        'pip install "octogen-dagster[sandbox,bigquery,mcp]"'
    ) in output
    assert "STATE_ACTIVE" not in output
    assert len(list(tmp_path.glob("octogen-demo/snapshots/octogen_products/*.parquet"))) == 1


def test_a_failed_run_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(catalogs: int, products: int, generation: str, hub: bool = False) -> Sandbox:
        fault = Fault("status", 403, path="/products/search")
        return Sandbox(catalogs=catalogs, products=products, faults=[fault])

    monkeypatch.setattr("octogen_dagster.demo.run.Sandbox", broken)
    monkeypatch.setenv("OCTOGEN_DEMO_SNAPSHOTS", str(tmp_path / "snapshots"))
    succeeded = run_demo(tmp_path, catalogs=1, products=3, generation="seed", ui_port=None)
    assert not succeeded
    output = capsys.readouterr().out
    assert "harbor-and-pine failed:" in output
    assert "403" in output
    assert "DAGSTER_HOME" not in os.environ
