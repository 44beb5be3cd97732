from __future__ import annotations

import functools
import tempfile
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest

from octogen_dagster.sandbox.server import Sandbox
from tests.frames.pages.reads import PRODUCTS, Generation, Reads


@pytest.fixture(params=["seed", "current"])
def reads(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Reads]:
    shops = {"northpeak": PRODUCTS, "strada": 120}
    with Sandbox(catalogs=shops, generation=request.param) as sandbox:
        yield Reads(sandbox, tmp_path / ".northpeak.pages", request.param)


@functools.cache
def undisturbed_read(generation: Generation) -> pl.DataFrame:
    with (
        Sandbox(catalogs={"northpeak": PRODUCTS}, generation=generation) as sandbox,
        tempfile.TemporaryDirectory() as folder,
    ):
        return Reads(sandbox, Path(folder)).read().drop("fetched_at")


@pytest.fixture
def undisturbed(reads: Reads) -> pl.DataFrame:
    return undisturbed_read(reads.generation)
