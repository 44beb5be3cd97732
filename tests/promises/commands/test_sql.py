"""`octogen-dagster sql` queries the stored snapshots, and changes nothing."""

import csv
import io
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest
from click.testing import CliRunner, Result

import octogen_dagster as od
from octogen_dagster.alerts import PriceDropped
from octogen_dagster.cli.main import main
from tests.histories import ASSET, day, make_history, product
from tests.projects import QUIET, GivenProducts, given_frame
from tests.results import materialized
from tests.servers.buckets import ENVIRONMENT, S3Bucket

Run = Callable[..., Result]
DRESS = "https://www.acme.example/dress"
HOSTILE = "=1+1\x1b]0;title\x07\x1b[2J\nline\x9b"
PRICES = f"""
SELECT valid_from AS since, current_price AS price, in_stock FROM {ASSET}
WHERE product_url = '{DRESS}' AND catalog_key = 'acme' ORDER BY since
"""


@pytest.fixture(scope="module")
def snapshots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the history, alerts, price position and costs of two catalogs' products."""
    folder = tmp_path_factory.mktemp("snapshots")
    articles = {"sku": ["4711"], "product_url": [DRESS], "price": [99.0], "currency": ["EUR"]}
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("octogen_catalogs", ["acme", "zen"])
        shop = GivenProducts(folder, instance, od.catalog_partitions)
        shop.following = [od.build_price_alerts_asset(shop.history, [PriceDropped()])]
        for catalog, prices in {"acme": (120.0, 96.0, 108.0), "zen": (90.0,)}.items():
            for number, price in enumerate(prices, 1):
                shop.frame = given_frame(day(number), [product("dress", price)], catalog)
                shop.update(partition_key=catalog)
        shop.following = [
            od.build_price_position_asset(shop.history, pl.DataFrame(articles)),
            od.build_costs_asset(key_prefix="money"),
        ]
        shop.update(*shop.following)
    pl.DataFrame({"a": [1]}).write_parquet(folder / "of_another_program.parquet")
    return folder


@pytest.fixture
def run(snapshots: Path) -> Run:
    """A function that runs the command on the folder, or on another one."""

    def run(*arguments: str, at: Path | str = snapshots, columns: int = 110) -> Result:
        options = ["sql", "--base-dir", str(at), *arguments]
        return CliRunner(env={"COLUMNS": str(columns)}).invoke(main, options)

    return run


def lines(result: Result) -> list[str]:
    assert result.exit_code == 0, result.output
    return [line.rstrip() for line in result.output.splitlines()]


def rows(result: Result) -> Any:
    assert result.exit_code == 0, result.output
    return json.loads(result.output)


def files(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_sql_alone_lists_the_tables(run: Run) -> None:
    listed = {each["table"]: each for each in rows(run("--json"))}
    assert {name: each["rows"] for name, each in listed.items()} == {
        "money/octogen_costs": 0,
        "octogen_products": 2,
        "octogen_products_alerts": 1,
        "octogen_products_history": 4,
        "octogen_products_position": 1,
    }
    assert "partition" not in listed["octogen_products_position"]["columns"]
    assert {"valid_from", "partition"} <= {*listed[ASSET]["columns"]}
    printed = lines(run())
    assert printed[0].split() == ["table", "rows", "columns"]
    assert any(line.startswith("money/octogen_costs") for line in printed)


def test_a_query_of_a_history_prints_the_prices_of_a_product(run: Run) -> None:
    assert lines(run(PRICES)) == [
        "since                price  in_stock",
        "2026-11-01 06:00:00  120.0  true",
        "2026-11-02 06:00:00   96.0  true",
        "2026-11-03 06:00:00  108.0  true",
    ]


@pytest.mark.parametrize(
    ("query", "last"),
    [
        (f"SELECT partition, count(*) AS n FROM {ASSET} GROUP BY partition ORDER BY n", "acme 3"),
        ("SELECT rule, before, after FROM octogen_products_alerts", "price_dropped 120.0 96.0"),
        ("SELECT sku, price, status FROM octogen_products_position", "4711 99.0 matched"),
        ('SELECT count(*) AS n FROM "money/octogen_costs"', "0"),
        ("/* of all */ -- shops\n(SELECT title FROM octogen_products LIMIT 1)", "Dress"),
        (
            "WITH h AS (SELECT * FROM octogen_products_history WHERE is_current) SELECT a.sku, "
            "h.current_price FROM octogen_products_position a JOIN h USING (product_url) "
            "WHERE h.partition = 'acme'",
            "4711 108.0",
        ),
    ],
)
def test_each_kind_of_table_can_be_queried(run: Run, query: str, last: str) -> None:
    assert lines(run(query))[-1].split() == last.split()


def test_a_table_has_all_partitions_of_catalogs_and_days(run: Run, tmp_path: Path) -> None:
    partitions = od.catalog_days("2026-11-01")

    @dg.asset(key_prefix="shops", partitions_def=partitions)
    def offers(context: dg.AssetExecutionContext) -> pl.DataFrame:
        return pl.DataFrame({"price": [float(context.partition_key[-1])]})

    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("octogen_catalogs", ["a/b", "zen"])
        for catalog, at in (("a/b", "2026-11-01"), ("a/b", "2026-11-02"), ("zen", "2026-11-01")):
            key = dg.MultiPartitionKey({"catalog": catalog, "day": at})
            materialized([offers], tmp_path, partition_key=key, instance=instance, run_config=QUIET)
    found = rows(run('SELECT * FROM "shops/offers" ORDER BY ALL', "--json", at=tmp_path))
    assert [(each["price"], each["partition"]) for each in found] == [
        *((1.0, "a/b|2026-11-01"), (1.0, "zen|2026-11-01"), (2.0, "a/b|2026-11-02")),
    ]


def test_only_the_files_of_the_named_tables_are_opened(run: Run, tmp_path: Path) -> None:
    make_history(tmp_path, {day(1): [product("hat", 9.0)]})
    damaged = tmp_path / "octogen_products/acme.parquet"
    damaged.write_bytes(b"damaged")
    of_others = tmp_path / "shops/zen.parquet"
    of_others.parent.mkdir()
    of_others.write_bytes(b"damaged")
    query = "SELECT count(*) AS n FROM octogen_products"
    failed = run(query, at=tmp_path)
    assert (failed.exit_code, failed.stdout) == (1, "")
    assert f"{damaged} is not a snapshot or is damaged" in failed.stderr
    damaged.unlink()
    assert rows(run(f"{query}_history", "--json", at=tmp_path)) == [{"n": 1}]


@pytest.mark.parametrize(
    "statement",
    [
        f"DELETE FROM {ASSET}",
        f"DROP TABLE {ASSET}",
        f"truncate table {ASSET}",
        f"CREATE TABLE copied AS SELECT * FROM {ASSET}",
        f"INSERT INTO {ASSET} SELECT * FROM {ASSET}",
        f"UPDATE {ASSET} SET current_price = 0",
        f"/* no */ DELETE FROM {ASSET}",
        f"COPY {ASSET} TO 'copied.csv'",
        f"WITH h AS (SELECT 1) DELETE FROM {ASSET}",
        f"SELECT 1; DROP TABLE {ASSET}",
    ],
)
def test_a_statement_that_writes_is_refused(run: Run, snapshots: Path, statement: str) -> None:
    before = files(snapshots)
    result = run(statement)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("Error: ")
    assert files(snapshots) == before


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("SELECT * FROM octogen_product_history", f"Did you mean {ASSET!r}?"),
        ("SELECT * FROM other", "tables: money/octogen_costs, octogen_products, "),
        (f"SELECT prize FROM {ASSET}", 'unable to find column "prize"'),
        (f"SELECT * FROM {ASSET} WHERE", "sql parser error: Expected: an expression"),
        (f"SELECT * FROM {ASSET} WHERE uuid > 1 + 'x'", "Polars cannot run the query: "),
        ("SELEC 1", "SELEC is not a SELECT"),
        ("", "is empty"),
    ],
)
def test_a_wrong_query_is_bad_input(run: Run, query: str, said: str) -> None:
    result = run(query)
    assert (result.exit_code, result.stdout) == (2, "")
    assert said in result.stderr
    assert "Traceback" not in result.stderr
    assert "FAILED HERE" not in result.stderr


@pytest.mark.parametrize("query", [[], ["SELECT * FROM octogen_products"]])
def test_a_folder_without_snapshots_is_told(run: Run, tmp_path: Path, query: list[str]) -> None:
    result = run(*query, at=tmp_path)
    assert (result.exit_code, result.stdout) == (1, "")
    assert f"{tmp_path} has no snapshots" in result.stderr


def test_an_asset_that_is_stored_twice_is_not_counted_twice(run: Run, tmp_path: Path) -> None:
    for catalog in ("acme", None):
        make_history(tmp_path, {day(1): [product("1", 9.0, catalog_key="acme")]}, catalog)
    result = run(f"SELECT * FROM {ASSET}", at=tmp_path)
    assert result.exit_code == 1
    assert f"{ASSET} is stored both as {tmp_path / ASSET}.parquet" in result.stderr


def test_a_table_shows_a_hundred_rows_and_the_columns_that_fit(run: Run, tmp_path: Path) -> None:
    make_history(tmp_path, {day(1): [product(f"{each}", 9.0) for each in range(101)]})
    query = f"SELECT uuid, title, product_url, uuid AS again FROM {ASSET}"
    printed = run(query, at=tmp_path, columns=30)
    assert lines(printed)[0].split() == ["uuid", "title"]
    assert "first 100 rows" in printed.output
    assert "2 more columns do not fit" in printed.output
    assert len(lines(printed)) == 1 + 100 + 4
    assert len(list(csv.DictReader(io.StringIO(run(query, "--csv", at=tmp_path).output)))) == 101
    assert lines(run(f"{query} LIMIT 0", at=tmp_path))[-1] == "No rows."
    assert run(query, at=tmp_path, columns=1).exit_code == 0


def test_values_are_text_in_each_form(run: Run, tmp_path: Path) -> None:
    """No control character reaches the terminal, and no formula a spreadsheet."""

    @dg.asset
    def values() -> pl.DataFrame:
        brand, nan = {"name": HOSTILE}, float("nan")
        columns = {"title": HOSTILE, "brand": brand, "price": nan, "key": b"\x1b"}
        return pl.DataFrame([{**columns, "sizes": [36, 38], "none": None}])

    materialized([values], tmp_path, run_config=QUIET)
    shown = [run("FROM values", *form, at=tmp_path).output for form in ([], ["--csv"], ["--json"])]
    assert not any(char in text for text in shown for char in "\x1b\x07\x9b")
    assert r"\x1b]0;title\x07\x1b[2J\nline\x9b" in shown[0]
    [row] = csv.DictReader(io.StringIO(shown[1]))
    assert row["title"].startswith("'=1+1")
    assert (row["sizes"], row["none"]) == ("36 38", "")
    [row] = json.loads(shown[2])
    assert row == {
        **{"title": HOSTILE, "brand": {"name": HOSTILE}, "price": None, "key": "1b"},
        **{"sizes": [36, 38], "none": None},
    }


DEFINITIONS = """\
import dagster as dg
from octogen_dagster import ParquetSnapshotIOManager

snapshots = ParquetSnapshotIOManager(base_dir={base_dir!r}, storage_options={options})
defs = dg.Definitions(resources={{"io_manager": snapshots}})
"""


def code(value: Any) -> str:
    return f"dg.EnvVar({value.env_var_name!r})" if isinstance(value, dg.EnvVar) else repr(value)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A project of `dg` without definitions, which is the working directory."""
    settings = 'directory_type = "project"\n[project]\nroot_module = "my_shops"\n'
    (tmp_path / "dg.toml").write_text(settings)
    package = tmp_path / "src/my_shops"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    monkeypatch.chdir(package)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield tmp_path
    for name in [name for name in sys.modules if name.split(".")[0] == "my_shops"]:
        del sys.modules[name]


@pytest.mark.slow
@pytest.mark.parametrize("place", ["disk", "s3"])
def test_the_snapshots_are_those_of_the_project(
    project: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest, place: str
) -> None:
    make_history(project / "mine", {day(1): [product("dress", 9.0)]})
    base_dir, options = "mine", "{}"
    if place == "s3":
        for name, value in ENVIRONMENT.items():
            monkeypatch.setenv(name, value)
        bucket = S3Bucket(request.getfixturevalue("s3"))
        for file in (project / "mine").rglob("*.parquet"):
            bucket.put(f"snapshots/{file.relative_to(project / 'mine')}", file.read_bytes())
        settings = {
            name: f"dg.EnvVar({value.env_var_name!r})"
            if isinstance(value, dg.EnvVar)
            else repr(value)
            for name, value in bucket.options.items()
        }
        base_dir = bucket.base_dir
        options = f"{{{', '.join(f'{name!r}: {value}' for name, value in settings.items())}}}"
    text = DEFINITIONS.format(base_dir=base_dir, options=options)
    (project / "src/my_shops/definitions.py").write_text(text)
    query = f"SELECT current_price, partition FROM {ASSET}"
    found = CliRunner().invoke(main, ["sql", query, "--json"])
    assert rows(found) == [{"current_price": 9.0, "partition": "acme"}]


@pytest.mark.parametrize("text", ["1/0", "import dagster as dg\ndefs = dg.Definitions()\n"])
def test_without_a_store_the_option_is_named(project: Path, text: str) -> None:
    (project / "src/my_shops/definitions.py").write_text(text)
    result = CliRunner().invoke(main, ["sql"])
    assert (result.exit_code, result.stdout) == (2, "")
    assert "Pass the folder or bucket as --base-dir" in result.stderr
    (project / "dg.toml").unlink()
    assert "Pass --base-dir" in CliRunner().invoke(main, ["sql"]).stderr
