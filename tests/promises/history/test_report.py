"""`report` writes a history as one page, whose data is the history and which needs no network."""

from __future__ import annotations

import base64
import gzip
import json
import re
import shutil
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from click.testing import CliRunner, Result

from octogen_dagster import scan_history
from octogen_dagster.cli.main import main
from octogen_dagster.position.table import price_position
from octogen_dagster.schemas import HISTORY_SCHEMA, PRODUCT_SCHEMA
from tests.histories import ASSET, day, make_history, product

HOSTILE = '<img src=x onerror="alert(1)"></script><script>alert(2)</script>'


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three days of two products, one of which goes."""
    folder = tmp_path_factory.mktemp("history")
    make_history(
        folder,
        {
            day(1): [product("boots", 100.0), product("scarf", 20.0, title=HOSTILE)],
            day(2): [product("boots", 90.0), product("scarf", 20.0, in_stock=False)],
            day(3): [product("boots", 80.0)],
        },
    )
    return folder


@pytest.fixture
def snapshots(history: Path, tmp_path: Path) -> Path:
    """A copy of the history, beside which a test may write."""
    return shutil.copytree(history, tmp_path / "snapshots")


def report(folder: Path, *arguments: str) -> Result:
    command = ["report", "--base-dir", str(folder), "--out", str(folder / "page.html")]
    return CliRunner().invoke(main, [*command, *arguments])


def data_of(page: str) -> dict[str, Any]:
    (text,) = re.findall(r'<script id="data" type="text/plain">([A-Za-z0-9+/=]+)</script>', page)
    data: dict[str, Any] = json.loads(gzip.decompress(base64.b64decode(text)))
    return data


def rows_of(data: dict[str, Any]) -> pl.DataFrame:
    """The rows of a history, from the data of its page."""
    places = [place for place, count in enumerate(data["products"]["rows"]) for _ in range(count)]
    times = [*data["times"], None]
    rows = data["rows"]
    return pl.DataFrame(
        {
            "product_url": [data["products"]["url"][place] for place in places],
            "valid_from": [times[place] for place in rows["begin"]],
            "valid_to": [times[place] for place in rows["end"]],
            "current_price": rows["price"],
            "currency": [[*data["currencies"], None][place] for place in rows["currency"]],
            "in_stock": [{1: True, 0: False, -1: None}[stock] for stock in rows["stock"]],
        }
    )


@pytest.mark.long
def test_the_data_of_the_page_is_the_history(snapshots: Path) -> None:
    result = report(snapshots, "--days", "1000000")
    assert result.exit_code == 0, result.output
    assert "page.html" in result.output
    found = rows_of(data_of((snapshots / "page.html").read_text()))
    seconds = [pl.col(name).dt.epoch("s").cast(pl.Float64) for name in ("valid_from", "valid_to")]
    history = scan_history(str(snapshots), asset=ASSET).with_columns(seconds)
    expected = history.select(found.columns).collect()
    key = ["product_url", "valid_from"]
    assert found.sort(key).equals(expected.sort(key))


@pytest.mark.long
def test_the_page_loads_nothing_and_no_title_is_markup(snapshots: Path) -> None:
    report(snapshots)
    page = (snapshots / "page.html").read_text()
    assert "default-src 'none'" in page
    assert not re.findall(r"<(?:script|link)[^>]+(?:src|href)=", page)
    assert "alert(" not in page
    assert page.count("<script") == page.count("</script>") == 3


@pytest.mark.long
def test_only_the_last_days_are_in_the_page(snapshots: Path) -> None:
    report(snapshots, "--days", "1")
    found = rows_of(data_of((snapshots / "page.html").read_text()))
    assert found["current_price"].to_list() == [90.0, 80.0, 20.0]


@pytest.mark.long
@pytest.mark.parametrize(
    ("names", "types"),
    [
        (({"name": "Acme"}, {"name": "Zen"}), {}),
        (("Acme", "Zen"), {"brand": pl.String()}),
        (("Acme", "Zen"), {"brand": pl.Categorical()}),
        (("Acme", "Zen"), {"brand_name": pl.String(), "category": pl.String()}),
    ],
    ids=["usual", "brands as texts", "brands as categories", "columns of a table"],
)
def test_products_have_the_brand_and_the_category_of_their_last_snapshot(
    tmp_path: Path, names: tuple[Any, Any], types: dict[str, pl.DataType]
) -> None:
    acme, zen = names
    schema, is_flat = pl.Schema(PRODUCT_SCHEMA | types), "category" in types
    if is_flat:
        del schema["brand"], schema["category_path"]

    def given(*products: dict[str, Any]) -> pl.DataFrame:
        frame, levels = pl.DataFrame(products), pl.col("category_path").list.join(" \u203a ")
        flat = frame.select(pl.exclude("category_path"), levels.alias("category"))
        return flat.rename({"brand": "brand_name"}) if is_flat else frame

    boots = product("boots", 100.0, brand=acme, category_path=["Shoes", "Boots"])
    gone = product("gone", 9.0, brand=zen, category_path=["Hats"])
    moved = {**boots, "brand": zen, "category_path": ["Boots"]}
    days = {
        day(1): given(boots, gone, product("scarf", 5.0, category_path=[])),
        day(2): given(moved, gone),
        day(3): given({**moved, "brand": acme}),
    }
    make_history(tmp_path, days, schema=schema)
    shutil.rmtree(tmp_path / "octogen_products")
    assert report(tmp_path).exit_code == 0
    data = data_of((tmp_path / "page.html").read_text())
    assert (data["brands"], data["categories"]) == (["Acme", "Zen"], ["Boots", "Hats"])
    assert (data["products"]["brand"], data["products"]["category"]) == ([0, 1, -1], [0, 1, -1])
    assert data["products"]["rows"] == [1, 1, 1]


@pytest.mark.long
def test_catalogs_whose_keys_differ_by_a_date_are_not_days_of_one(tmp_path: Path) -> None:
    for number in (1, 2):
        brand = {"name": f"Brand {number}"}
        sale = {day(number): [product(f"boots-{number}", 9.0, brand=brand)]}
        make_history(tmp_path, sale, f"sale-2026-11-0{number}")
    report(tmp_path)
    data = data_of((tmp_path / "page.html").read_text())
    assert data["catalogs"] == ["sale-2026-11-01", "sale-2026-11-02"]
    assert [data["brands"][place] for place in data["products"]["brand"]] == ["Brand 1", "Brand 2"]


@pytest.mark.long
def test_a_product_that_is_in_two_partitions_has_the_events_of_each_once(snapshots: Path) -> None:
    folder = snapshots / ASSET
    shutil.copy(folder / "acme.parquet", folder / "zen.parquet")
    report(snapshots)
    events = data_of((snapshots / "page.html").read_text())["events"]
    assert sorted(events["product"]) == [0, 0, 1, 1, 2, 2, 3, 3]


@pytest.mark.slow
def test_own_prices_have_rank_index_and_who_is_below(snapshots: Path) -> None:
    report(snapshots)
    assert data_of((snapshots / "page.html").read_text())["own"]["sku"] == []
    others = [
        product(name, price, product_url=f"https://{name}.example/boots", catalog_key=name)
        for name, price in (("zen", 90.0), ("nord", 110.0), ("sud", 70.0))
    ]
    elsewhere = pl.DataFrame(
        [each | {"valid_from": day(3)} for each in others], schema={**HISTORY_SCHEMA}
    )
    history = scan_history(str(snapshots), asset=ASSET)
    urls = ["https://www.acme.example/boots", *(each["product_url"] for each in others)]
    own = pl.DataFrame(
        {
            "sku": [*[4711] * 4, 12, 13],
            "product_url": [*urls, urls[0], "https://www.acme.example/scarf"],
            "price": [*[85.0] * 4, 80.0, 80.0],
            "currency": "eur",
        }
    )
    position = price_position(pl.concat([history, elsewhere.lazy()]), own)
    position.write_parquet(snapshots / "octogen_products_position.parquet")
    report(snapshots)
    data = data_of((snapshots / "page.html").read_text())
    boots = data["products"]["url"].index(urls[0])
    assert data["own"] == {
        "currency": [data["currencies"].index("EUR")] * 2,
        "sku": ["12", "4711"],
        "price": [80.0, 85.0],
        "rank": [1, 3],
        "competitors": [1, 4],
        "index": [1.0, 1.0],
        "products": [[boots], [boots]],
        "below": [
            [],
            [
                {"title": "Sud", "url": urls[3], "price": 70.0},
                {"title": "Boots", "url": urls[0], "price": 80.0},
            ],
        ],
    }


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["--asset", "boots_history"], 1, "The history boots_history does not exist"),
        (["--days", "0"], 2, "--days"),
        (["--out", "no/such/folder.html"], 2, "cannot be written: No such file or directory"),
    ],
)
def test_what_cannot_be_reported_is_told(
    snapshots: Path, arguments: list[str], status: int, message: str
) -> None:
    result = report(snapshots, *arguments)
    assert (result.exit_code, message in result.output) == (status, True), result.output
