"""A table of one's own has a past as products have, by what its kind or the call says of it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import polars as pl
import pytest
from click.testing import CliRunner

import octogen_dagster as od
from octogen_dagster.cli.main import main
from octogen_dagster.errors import OctogenSnapshotError
from octogen_dagster.frames.kinds import TableKind
from octogen_dagster.history.files import forget_snapshot
from octogen_dagster.history.tracking import COMPUTED
from octogen_dagster.snapshots.asset_decorator import SnapshotRun, snapshot_asset
from octogen_dagster.tables import DuckDBTables
from tests.histories import QUIET, day
from tests.projects import Project
from tests.results import metadata

ASSET = "articles_history"
TRACKED = ["price", "currency"]
Row = dict[str, Any]


def article(sku: str | None, price: Any, **values: Any) -> Row:
    return {"sku": sku, "price": price, "currency": "EUR", **values}


class Articles(Project):
    """Articles that are given, with their history."""

    def __init__(self, folder: Path, instance: dg.DagsterInstance, **history: Any) -> None:
        super().__init__(folder, instance)

        @dg.asset
        def articles() -> pl.DataFrame:
            return self.frame

        self.frame = pl.DataFrame()
        self.articles = articles
        self.history = od.build_history_asset(
            articles, **{"key": ["sku"], "tracked": TRACKED, **history}
        )
        self.checks = od.build_snapshot_checks(self.history, max_age=None)

    def store(self, at: datetime | None, *rows: Row) -> dg.ExecuteInProcessResult:
        """Store the articles as of a time, and put them into the history."""
        self.frame = pl.DataFrame(rows) if rows else self.frame.clear()
        if at is not None:
            self.frame = self.frame.with_columns(fetched_at=pl.lit(at))
        return self.run([self.articles, self.history, *self.checks], run_config=QUIET)

    def prices(self, at: datetime | None = None) -> dict[str, Any]:
        rows = od.scan_history(str(self.folder), asset=ASSET, as_of=at).collect()
        return dict(rows.select("sku", "price").rows())


@pytest.fixture
def articles(tmp_path: Path, instance: dg.DagsterInstance) -> Articles:
    return Articles(tmp_path, instance)


@pytest.mark.slow
def test_prices_have_a_past_in_any_order_and_may_be_forgotten(articles: Articles) -> None:
    articles.store(day(1), article("a", 10), article("b", 5))
    articles.store(day(3), article("a", 12.5))
    shown = metadata(articles.store(day(2), article("a", 11), article("b", 5)), ASSET)
    assert shown["octogen/summary"].startswith("**1 row** in 3 snapshots; the latest: 0 new, 1")
    for at, prices in ((1, {"a": 10, "b": 5}), (2, {"a": 11, "b": 5}), (3, {"a": 12.5})):
        assert articles.prices(day(at)) == prices
    again = articles.store(day(2), article("a", 11), article("b", 5))
    assert all(each.passed for each in again.get_asset_check_evaluations())
    forget_snapshot(str(articles.folder), day(3), asset=ASSET)
    assert articles.prices(day(4)) == {"a": 11, "b": 5}
    rows = od.scan_history(str(articles.folder), asset=ASSET).collect()
    assert rows.filter("is_current")["changed"].to_list() == [["price"], None]


@pytest.mark.slow
def test_a_table_without_a_time_is_of_when_it_was_stored(articles: Articles) -> None:
    began_at = datetime.now(UTC)
    articles.store(None, article("a", 10.0))
    articles.store(None, article("a", 11.0))
    articles.run([articles.articles, articles.history], selection=[articles.history])
    rows = od.scan_history(str(articles.folder), asset=ASSET).collect()
    assert rows["price"].to_list() == [10.0, 11.0]
    assert rows["valid_from"].is_between(began_at, began_at + timedelta(hours=1)).all()


def test_a_table_with_partitions_may_be_given_by_its_key(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    @dg.asset(partitions_def=dg.StaticPartitionsDefinition(["a", "b"]))
    def articles(context) -> pl.DataFrame:  # type: ignore[no-untyped-def]  # Dagster reads the annotation
        return pl.DataFrame([article(context.partition_key, 10.0)])

    project = Project(tmp_path, instance)
    history = od.build_history_asset(articles.key, key=["sku"], tracked=TRACKED)
    for partition in ("a", "b"):
        project.run([articles], partition_key=partition)
    project.run([articles, history], selection=[history])
    rows = od.scan_history(str(tmp_path), asset=ASSET).collect()
    assert sorted(rows["sku"]) == ["a", "b"]


@pytest.mark.slow
def test_a_table_that_became_empty_ends_its_rows_when_it_was_stored(articles: Articles) -> None:
    articles.store(day(1), article("a", 10.0))
    began_at = datetime.now(UTC)
    for _ in range(2):
        articles.store(day(2))
        rows = od.scan_history(str(articles.folder), asset=ASSET).collect()
        assert rows["is_current"].to_list() == [False]
        assert rows["valid_to"].is_between(began_at, began_at + timedelta(hours=1)).all()


@pytest.mark.parametrize("name", COMPUTED)
@pytest.mark.parametrize("argument", ["key", "tracked"])
def test_a_column_that_the_history_computes_is_refused(
    tmp_path: Path, instance: dg.DagsterInstance, name: str, argument: str
) -> None:
    with pytest.raises(ValueError, match=rf"^articles has a column '{name}', .* Rename"):
        Articles(tmp_path, instance, **{argument: [name]})


@pytest.mark.slow
@pytest.mark.parametrize("argument", ["key", "tracked"])
def test_a_column_has_the_name_that_it_has(
    tmp_path: Path, instance: dg.DagsterInstance, argument: str
) -> None:
    names = ["until", "begins", "is_covered"]
    columns = {"key": ["sku"], "tracked": TRACKED}
    columns[argument] = [*columns[argument], *names]
    articles = Articles(tmp_path, instance, **columns)
    x, y = dict.fromkeys(names, "x"), dict.fromkeys(names, "y")
    rows = [article("a", 10.0, **x), article("b", 5.0, **y)]
    articles.store(day(1), *rows)
    articles.store(day(3), *rows)
    result = articles.store(day(2), article("a", 11.0, **x), rows[1])
    assert all(each.passed for each in result.get_asset_check_evaluations())
    for at, price in ((1, 10.0), (2, 11.0), (3, 10.0)):
        assert articles.prices(day(at)) == {"a": price, "b": 5.0}
    history = od.scan_history(str(articles.folder), asset=ASSET).collect()
    assert history.sort("sku", "valid_from").select(names).rows() == [*[("x",) * 3] * 3, ("y",) * 3]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (article("a", "ten"), "column price has the type String"),
        (article(None, 12.0), "row whose sku is null"),
        ({"sku": "a", "price": 12.0}, "no column currency"),
    ],
)
def test_a_day_that_does_not_fit_is_left_out_and_named(
    articles: Articles, row: Row, reason: str
) -> None:
    articles.store(day(1), article("a", 10.0))
    result = articles.store(day(2), row)
    assert reason in metadata(result, ASSET)["octogen/left_out"]
    assert articles.prices() == {"a": 10.0}


@pytest.mark.slow
def test_a_column_may_be_tracked_later_and_another_key_is_refused(
    articles: Articles, instance: dg.DagsterInstance
) -> None:
    articles.store(day(1), article("a", 10.0, map_price=8.0))
    later = Articles(articles.folder, instance, tracked=[*TRACKED, "map_price"])
    later.store(day(2), article("a", 10.0, map_price=8.0))
    rows = od.scan_history(str(articles.folder), asset=ASSET).collect()
    assert rows["map_price"].to_list() == [None, 8.0]
    assert rows["changed"].to_list() == [None, ["map_price"]]
    for other in ({"key": ["currency"], "tracked": ["price", "map_price"]}, {}):
        asset = Articles(articles.folder, instance, **other)
        with pytest.raises(dg.Failure, match=r"key sku and tracks the columns price, .* move"):
            asset.store(day(3), article("a", 10.0))


def test_its_kind_says_the_key_and_what_is_watched_and_it_becomes_a_table(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    schema = pl.Schema({"brand": pl.String(), "reduced": pl.Int64(), "note": pl.String()})
    kind = TableKind(
        schema,
        {"reduced": "How many are reduced."},
        key=("brand",),
        watched={"share": ("reduced",)},
    )

    @snapshot_asset({}, kind=kind)
    def discounts(_run: SnapshotRun, _partition: str | None) -> pl.DataFrame:
        return pl.DataFrame([{"brand": "Acme", "reduced": 3, "note": "x"}], schema=schema)

    history = od.build_history_asset(discounts)
    table = od.build_table_asset(history, DuckDBTables(database=str(tmp_path / "shop.duckdb")))
    project = Project(tmp_path, instance)
    for _ in range(2):
        project.run([discounts, history, table], run_config=QUIET)
    with duckdb.connect(str(tmp_path / "shop.duckdb")) as connection:
        rows = connection.sql("SELECT brand, reduced, is_current FROM octogen.discounts_history")
        assert rows.fetchall() == [("Acme", 3, True)]


def test_the_report_says_that_it_is_no_history_of_products(articles: Articles) -> None:
    articles.store(day(1), article("a", 10.0))
    asked = ["report", "--base-dir", str(articles.folder), "--asset", ASSET]
    done = CliRunner().invoke(main, asked)
    assert done.exit_code == 1
    assert ASSET in done.stderr
    assert "scan_history" in done.stderr
    with pytest.raises(OctogenSnapshotError, match="has no catalog 'acme'"):
        od.scan_history(str(articles.folder), asset=ASSET, catalogs=["acme"])


BIG, UNSIGNED = 2**53 + 1, 2**64 - 1
FLOAT, UINT = pl.Float64(), pl.UInt64()
PRECISE = Decimal("12345678901234567.89")
KEPT = [
    ("price", [5, 2.5], None),
    ("price", [2.5, 5], None),
    ("price", [pl.Series([7], dtype=UINT), 5], None),
    ("price", [Decimal("1.15"), 2.5], None),
    ("price", [BIG, 2.5], FLOAT),
    ("price", [2.5, BIG], pl.Int64()),
    ("price", [BIG, pl.Series([UNSIGNED], dtype=UINT)], UINT),
    ("price", [pl.Series([UNSIGNED], dtype=UINT), 5], pl.Int64()),
    ("price", [PRECISE, 2.5], FLOAT),
    ("price", [2.5, PRECISE], pl.Decimal(38, 2)),
    ("sku", [BIG, 2.5], FLOAT),
    ("sku", [2.5, BIG], pl.Int64()),
]


@pytest.mark.parametrize("at_once", [False, True])
@pytest.mark.parametrize(("column", "values", "left_out"), KEPT)
def test_a_snapshot_whose_numbers_would_lose_digits_is_left_out_and_named(
    articles: Articles, column: str, values: list[Any], left_out: pl.DataType | None, at_once: bool
) -> None:
    first, second = (each if isinstance(each, pl.Series) else pl.Series([each]) for each in values)
    for number, given in enumerate((first, second), 1):
        frame = pl.DataFrame({"sku": [1], "price": [1], "currency": ["EUR"]})
        articles.frame = frame.with_columns(given.alias(column), fetched_at=pl.lit(day(number)))
        result = articles.run([articles.articles, articles.history], run_config=QUIET)
        if number == 1 and at_once:  # the next run puts in both
            (articles.folder / f"{ASSET}.parquet").unlink()
    shown = metadata(result, ASSET)
    rows = od.scan_history(str(articles.folder), asset=ASSET).sort("valid_from").collect()
    if left_out is None:
        assert "octogen/left_out" not in shown
        assert rows[column].to_list() == [float(first[0]), float(second[0])]
        return
    # The present snapshot comes first, and no snapshot before it may change it.
    kept, lost, at = (second, first, 1) if at_once else (first, second, 2)
    assert rows[column].to_list() == kept.to_list()
    assert f"2026-11-0{at} " in shown["octogen/left_out"]
    assert f"{column} has the type {lost.dtype}" in shown["octogen/left_out"]
    assert "would lose precision" in shown["octogen/left_out"]
