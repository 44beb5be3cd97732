"""The programs of docs/coming-from.md bring the same products."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import polars as pl
import pytest

from octogen_dagster.sandbox.server import Sandbox

PAGE = (Path(__file__).parents[2] / "docs/coming-from.md").read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)


def test_the_programs_before_and_after_bring_the_same_products(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    writers = [block for block in BLOCKS if '_parquet("jackets.parquet")' in block]
    found = []
    with Sandbox(catalogs={"acme": 40, "northpeak": 900}, generation="current") as sandbox:
        for name, value in sandbox.environment.items():
            monkeypatch.setenv(name, value)
        for block in writers:
            Path("program.py").write_text(block)
            runpy.run_path("program.py")
            found.append(pl.read_parquet("jackets.parquet")["uuid"].to_list())
        pages = sum(each.path.endswith("/search") for each in sandbox.requests)
    loop, scan = found
    assert len(scan) == len(set(scan)) > 100
    assert set(loop) == set(scan)
    assert pages > len(writers), "one page would not show that the cursor is followed"
