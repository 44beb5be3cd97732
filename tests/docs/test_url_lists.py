"""The page about URL lists leads from its CSV to the tables that it shows."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest

from octogen_dagster import scan_history
from octogen_dagster.sandbox.server import Sandbox
from tests.docs.blocks import BLOCKS
from tests.docs.places import CATALOG, Place

PAGE = "docs/url-lists.md"
pytestmark = pytest.mark.slow
QUIET = {"loggers": {"console": {"config": {"log_level": "ERROR"}}}}


def block(language: str, having: str) -> str:
    """The only block in a language with a text in it."""
    [found] = [
        each.source
        for each in BLOCKS
        if (each.page, each.language) == (PAGE, language) and having in each.source
    ]
    return found


def run_blocks(*sources: str) -> dict[str, Any]:
    """The names of blocks that are one program."""
    names: dict[str, Any] = {"__name__": "definitions"}
    for source in sources:
        exec(compile(source, "definitions.py", "exec"), names)
    return names


@pytest.fixture
def sandbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.chdir(tmp_path)
    with Sandbox(catalogs={CATALOG: 60}, hub=True, url_list_seconds=0) as sandbox:
        sandbox.hub.share(CATALOG)
        place = Place(sandbox)
        for name, value in place.environment.items():
            monkeypatch.setenv(name, value)
        Path("articles.csv").write_text(place.fill_in(block("text", "price,url")))
        yield sandbox


def materialize(defs: dg.Definitions, instance: dg.DagsterInstance) -> None:
    job = defs.resolve_implicit_global_asset_job_def()
    assert job.execute_in_process(instance=instance, run_config=QUIET).success


def test_the_tables_are_those_that_the_page_shows(
    sandbox: Sandbox, instance: dg.DagsterInstance, capsys: pytest.CaptureFixture[str]
) -> None:
    defs = run_blocks(block("python", "def prices("))["defs"]
    materialize(defs, instance)
    sandbox.next_day()
    materialize(defs, instance)
    capsys.readouterr()
    with pl.Config(
        tbl_hide_dataframe_shape=True,
        tbl_hide_column_data_types=True,
        fmt_str_lengths=80,
        tbl_width_chars=120,
    ):
        run_blocks(block("python", "print("))
    printed = capsys.readouterr().out.replace(sandbox.hosts[0], "acme.com")
    assert words(printed) == words(block("text", "not_covered"))


@pytest.mark.long
def test_products_of_a_list_have_a_history_and_a_position(
    sandbox: Sandbox, instance: dg.DagsterInstance
) -> None:
    added = block("python", "build_price_position_asset")
    names = run_blocks(block("python", "def prices("), added)
    chain = ("articles", "q3", "export", "offers", "price_list", "history", "position")
    defs = dg.Definitions([names[name] for name in chain], resources=names["defs"].resources)
    [url] = pl.read_csv("articles.csv").filter(sku=4711)["url"].to_list()[:1]
    materialize(defs, instance)
    assert not Path("snapshots/q3_offers_history.parquet").exists()
    sandbox.next_day()
    materialize(defs, instance)
    sandbox.set_price(url, 50.0)
    sandbox.next_day()
    materialize(defs, instance)
    history = scan_history("snapshots", asset="q3_offers_history").collect()
    assert history["uuid"].n_unique() == 3
    rows = history.filter(product_url=url).sort("valid_from")
    assert rows["current_price"].to_list() == [74.0, 50.0]
    assert rows["change"].to_list() == ["appeared", "changed"]
    position = pl.read_parquet("snapshots/q3_offers_position.parquet")
    matched = position.filter(sku="4711", product_url=url).row(0, named=True)
    assert (matched["status"], matched["competitor_price"]) == ("matched", 50.0)


def words(table: str) -> list[str]:
    """What is in the cells of tables that Polars prints."""
    return [word for word in re.split(r"[\s─═╌┌┐└┘├┤┬┴┼╞╡╪│┆]+", table) if word]
