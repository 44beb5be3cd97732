"""`octogen-dagster history` prints the past of one product."""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
from click.testing import CliRunner, Result

from octogen_dagster.cli.main import main
from tests.histories import day, make_history, product

Run = Callable[..., Result]
DRESS = "https://www.acme.example/dress"
PAST = """\
Linen dress (acme)
https://www.acme.example/dress, uuid dress

since                what                            price       before      stock
2026-11-01 06:00:00  appeared                        120.00 EUR              in stock
2026-11-02 06:00:00  changed: price                  96.00 EUR   120.00 EUR  in stock
2026-11-03 06:00:00  changed: availability           96.00 EUR   120.00 EUR  out of stock
2026-11-04 06:00:00  disappeared
2026-11-05 06:00:00  reappeared, renamed from Dress  108.00 EUR              in stock

96.00 EUR to 120.00 EUR, from 2026-11-01 06:00:00 to 2026-11-06 06:00:00
██████████████▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁             ▅▅▅▅▅▅▅▅▅▅▅▅▅▅▅▅

"""


@pytest.fixture(scope="module")
def snapshots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the histories of two catalogs, both of which have a dress."""
    folder = tmp_path_factory.mktemp("snapshots")
    hat, last = product("hat", 20.0), product("dress", 108.0, title="Linen dress")
    reduced = product("dress", 96.0, original_price=120.0)
    days = {
        day(1): [product("dress", 120.0), hat],
        day(2): [reduced, hat],
        day(3): [{**reduced, "in_stock": False}],
        day(4): [hat],
        day(5): [last, hat],
        day(6): [last],
    }
    make_history(folder, days)
    make_history(folder, {day(1): [product("dress", None)]}, catalog="zen")
    return folder


@pytest.fixture
def run(snapshots: Path) -> Run:
    """A function that runs the command on the folder."""

    def history(*arguments: str) -> Result:
        options = ["--base-dir", str(snapshots), *arguments]
        return CliRunner(env={"COLUMNS": "110"}).invoke(main, ["history", *options])

    return history


def lines(result: Result) -> list[str]:
    assert result.exit_code == 0, result.output
    return [line.rstrip() for line in result.output.splitlines()]


@pytest.mark.slow
def test_a_past_is_a_table_of_what_happened_and_a_line_of_prices(run: Run) -> None:
    assert lines(run("--product", "dress", "--catalog", "acme")) == PAST.splitlines()


def test_a_product_is_found_by_its_url_in_all_catalogs(run: Run) -> None:
    rows = json.loads(run("--product", DRESS, "--json").output)
    assert [(row["catalog_key"], row["current_price"]) for row in rows] == [
        *(("acme", price) for price in (120.0, 96.0, 96.0, 108.0)),
        ("zen", None),
    ]
    assert rows == json.loads(run("--product", "dress", "--json").output)


def test_a_product_is_found_by_a_part_of_its_title(run: Run) -> None:
    by_uuid = run("--product", "dress", "--catalog", "acme").output
    assert run("--title", "LINEN dr", "--catalog", "acme").output == by_uuid
    assert '"zen"' not in run("--title", "Linen", "--json").output
    assert json.loads(run("--title", "hat", "--json").output)[0]["uuid"] == "hat"


def test_of_several_products_with_a_text_in_their_title_one_is_to_be_chosen(run: Run) -> None:
    assert lines(run("--title", "dress")) == [
        "2 products have this in their title. Choose one by --product:",
        "",
        "Linen dress (acme), 108.00 EUR",
        f"  {DRESS}",
        "Dress (zen)",
        f"  {DRESS}",
    ]


@pytest.mark.slow
def test_what_became_cheaper_in_the_last_snapshot_is_listed(run: Run, tmp_path: Path) -> None:
    first = [product("dress", 120.0), product("hat", 20.0), product("coat", 9.0)]
    hostile = "https://www.acme.example/\x1b[31m"
    later = [product("dress", 96.0), product("hat", 19.0, product_url=hostile), first[2]]
    make_history(tmp_path, {day(1): first, day(2): later})
    make_history(tmp_path, {day(1): first, day(3): [product("coat", 4.5)]}, catalog="zen")
    at = ["--base-dir", str(tmp_path), "--drops"]
    assert lines(run(*at)) == [
        " -50 %  9.00 EUR → 4.50 EUR  Coat (zen)",
        "        https://www.acme.example/coat",
        " -20 %  120.00 EUR → 96.00 EUR  Dress (acme)",
        f"        {DRESS}",
        "  -5 %  20.00 EUR → 19.00 EUR  Hat (acme)",
        r"        https://www.acme.example/\x1b[31m",
    ]
    assert len(lines(run(*at, "--catalog", "zen"))) == 2
    row, *_ = json.loads(run(*at, "--json").output)
    assert (row["catalog_key"], row["before"], row["after"], row["change_percent"]) == (
        *("zen", 9.0, 4.5),
        -50.0,
    )
    assert run(*at, "--csv").output.splitlines()[1].startswith("zen,coat,")
    assert lines(run("--drops")) == ["No price fell in the last snapshot."]


def test_csv_has_the_rows_of_the_history(run: Run) -> None:
    first, second, *_ = csv.DictReader(io.StringIO(run("--product", "dress", "--csv").output))
    assert first["valid_to"] == second["valid_from"] == "2026-11-02T06:00:00+00:00"
    assert (second["change"], second["changed"]) == ("changed", "price")
    assert (second["current_price"], second["in_stock"]) == ("96.0", "true")


@pytest.mark.parametrize(
    ("as_of", "price", "in_stock"),
    [
        ("2026-11-02", 120.0, True),
        ("2026-11-02T06:00", 96.0, True),
        ("2026-11-02T06:00Z", 96.0, True),
        ("2026-11-02T06:00+01:00", 120.0, True),
        ("2026-11-03T07:00", 96.0, False),
        ("2027-01-01", 108.0, True),
    ],
)
def test_as_of_a_time(run: Run, as_of: str, price: float, in_stock: bool) -> None:
    result = run("--product", "dress", "--catalog", "acme", "--as-of", as_of, "--json")
    [row] = json.loads(result.output)
    assert (row["current_price"], row["in_stock"]) == (price, in_stock)


def test_as_of_a_time_the_table_has_one_row(run: Run) -> None:
    shown = lines(run("--product", "dress", "--catalog", "acme", "--as-of", "2026-11-03"))
    assert [line for line in shown if "2026" in line] == [
        "2026-11-02 06:00:00  changed: price  96.00 EUR  120.00 EUR  in stock"
    ]


def test_a_search_over_many_catalogs_has_one_history(run: Run, tmp_path: Path) -> None:
    of_search = [
        product("dress", 9.0, catalog_key="acme"),
        product("dress", 8.0, catalog_key="zen"),
    ]
    make_history(tmp_path, {day(1): of_search}, catalog=None)
    arguments = ["--base-dir", str(tmp_path), "--product", "dress", "--json"]
    of_all, of_one = (
        [row["current_price"] for row in json.loads(run(*arguments, *more).output)]
        for more in ([], ["--catalog", "zen"])
    )
    assert (of_all, of_one) == ([9.0, 8.0], [8.0])


def test_control_characters_of_a_shop_are_text(run: Run, tmp_path: Path) -> None:
    hostile = {"title": "red\x1b]0;title\x07\x1b[2J\nline", "product_url": "https://a/\x1b[31m"}
    make_history(tmp_path, {day(1): [product("1", 9.0, currency="E\x9bR", **hostile)]})
    of_hostile = ["--base-dir", str(tmp_path), "--product", "1"]
    for form in ([], ["--csv"]):
        output = run(*of_hostile, *form).output
        assert not any(char in output for char in "\x1b\x07\x9b"), form
        assert r"red\x1b]0;title\x07\x1b[2J\nline" in output, form
        assert r"https://a/\x1b[31m" in output, form
    [row] = json.loads(run(*of_hostile, "--json").output)
    assert row["title"] == hostile["title"]


@pytest.mark.parametrize("price", [float("nan"), float("inf")])
def test_a_price_that_is_no_number_is_none(run: Run, tmp_path: Path, price: float) -> None:
    make_history(tmp_path, {day(1): [product("1", price)], day(2): [product("1", 9.0)]})
    of_product = ["--base-dir", str(tmp_path), "--product", "1"]
    lines(run(*of_product))
    prices = [row["current_price"] for row in json.loads(run(*of_product, "--json").output)]
    assert prices == [None, 9.0]


def test_a_product_may_have_no_catalog(run: Run, tmp_path: Path) -> None:
    days = {day(1): [product("hat", 9.0)], day(2): [product("hat", 8.0)]}
    make_history(tmp_path, days)
    file = tmp_path / "octogen_products_history/acme.parquet"
    metadata = pl.read_parquet_metadata(file)
    rows = pl.read_parquet(file).with_columns(catalog_key=pl.lit(None, pl.String))
    rows.write_parquet(file, metadata=metadata)
    shown = lines(run("--base-dir", str(tmp_path), "--product", "hat"))
    assert "8.00 EUR to 9.00 EUR, from 2026-11-01 06:00:00 to 2026-11-02 06:00:00" in shown


def test_a_terminal_may_be_narrow(snapshots: Path) -> None:
    arguments = ["history", "--base-dir", str(snapshots), "--product", "dress"]
    assert CliRunner(env={"COLUMNS": "1"}).invoke(main, arguments).exit_code == 0


def test_a_damaged_file_is_named(run: Run, snapshots: Path, tmp_path: Path) -> None:
    folder = tmp_path / "snapshots"
    shutil.copytree(snapshots, folder)
    damaged = folder / "octogen_products_history/zen.parquet"
    damaged.write_bytes(b"damaged")
    result = run("--base-dir", str(folder), "--product", "dress")
    assert (result.exit_code, result.stdout) == (1, "")
    assert f"{damaged} is not a snapshot or is damaged" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (
            ["--product", "coat"],
            1,
            "Error: No product with the uuid 'coat' is in the history octogen_products_history in "
            "{snapshots}. Give its uuid or its product_url as the snapshots have it.\n",
        ),
        (
            ["--product", "hat", "--as-of", "2026-10-31"],
            1,
            "Error: The product 'hat' was not there at 2026-10-31 00:00:00+00:00. In the history "
            "octogen_products_history in {snapshots} it was first seen at 2026-11-01 "
            "06:00:00+00:00 and gone at 2026-11-06 06:00:00+00:00. Ask for another time, or for "
            "its whole past.\n",
        ),
        (["--title", "coat"], 1, "has 'coat' in its title. Give a part of the title."),
        ([], 2, "Name a product by --product or by --title, or ask for --drops."),
        (["--drops", "--title", "hat"], 2, "Name a product by --product or by --title"),
        (["--drops", "--as-of", "2026-11-01"], 2, "--as-of is of one product"),
        (["--product", "hat", "--catalog", "acne"], 1, "Did you mean 'acme'?"),
        (["--product", "hat", "--asset", "boots_history"], 1, "There is no history boots_history"),
        (
            ["--product", "hat", "--as-of", "9999-12-31T23:59-01:00"],
            2,
            "'9999-12-31T23:59-01:00' is not a time.",
        ),
        (
            ["--product", "hat", "--as-of", "2026-13-01"],
            2,
            "'2026-13-01' is not a time. Write a day as 2026-11-01, which is its beginning in UTC, "
            "or a time as 2026-11-01T06:00+01:00.",
        ),
    ],
)
def test_an_error_says_what_is_not_there(
    run: Run, snapshots: Path, arguments: list[str], status: int, message: str
) -> None:
    result = run(*arguments)
    assert (result.exit_code, result.stdout) == (status, "")
    assert message.format(snapshots=snapshots) in result.stderr


def test_an_empty_folder_has_no_history(run: Run, tmp_path: Path) -> None:
    result = run("--base-dir", str(tmp_path), "--product", "dress")
    assert result.exit_code == 1
    assert "There is no history octogen_products_history" in result.stderr
