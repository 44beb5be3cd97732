"""Mistakes in a table of one's own are told when definitions load, and its frame is made to fit."""

import re
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import polars as pl
import pytest

from octogen_dagster import build_snapshot_checks, build_table_asset
from octogen_dagster.frames.kinds import PLAIN, Check, Markdown, Rule, TableKind, Verdict
from octogen_dagster.snapshots.asset_decorator import SnapshotRun, snapshot_asset
from octogen_dagster.snapshots.loading import snapshot_inputs
from octogen_dagster.tables import DuckDBTables
from tests.histories import day, product
from tests.projects import given_frame
from tests.results import failure, is_retried, materialized, metadata

SIZES = pl.Schema({"brand": pl.String(), "products": pl.Int64()})
NO_RETRY = {"retry_policy": None}


@dg.asset
def shop() -> pl.DataFrame:
    return pl.DataFrame({"brand": ["Acme", "Acme", None]})


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"descriptions": {"product": ""}}, "'product', .* Did you mean 'products'"),
        ({"volatile": ("at",)}, "^volatile in a TableKind refers to the column 'at'"),
        ({"key": ("brands",)}, "^key in a TableKind refers to the column 'brands'"),
        (
            {"made_from": {"name": ["brand"]}},
            "^made_from in a TableKind refers to the column 'name'",
        ),
        ({"rules": [Rule("few", "bad", pl.lit(True), 0.0, ("price",))]}, "^rules .* 'price'"),
        ({"rules": [Rule("few", "bad", pl.lit(True), 0.0, ())]}, "A rule .* the check 'few'"),
        ({"checks": {"few": Check("Few are bad.")}}, "The check 'few' .* would always pass"),
    ],
)
def test_a_kind_names_its_own_columns_and_checks(arguments: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        TableKind(SIZES, **arguments)


def test_the_columns_of_a_kind_without_a_schema_are_not_known() -> None:
    assert TableKind(descriptions={"sku": "The article."}, key=("sku",)).key == ("sku",)


def without_a_partition(run: SnapshotRun) -> None: ...
def with_another_name(run: SnapshotRun, partition: None, products: object) -> None: ...


@pytest.mark.parametrize("function", [without_a_partition, with_another_name])
def test_a_function_takes_the_run_the_partition_and_the_inputs(
    function: Callable[..., Any],
) -> None:
    signature = rf"Write def {function.__name__}\(run, partition, stored\)"
    with pytest.raises(TypeError, match=signature):
        snapshot_asset(snapshot_inputs(stored=shop))(function)


def test_an_input_is_an_asset() -> None:
    of: Any = "shop"
    with pytest.raises(TypeError, match="products must be an asset; got str"):
        snapshot_inputs(products=of)


@pytest.mark.parametrize("in_a_result", [False, True])
def test_a_frame_gets_the_columns_of_its_kind_in_their_types(
    tmp_path: Path, in_a_result: bool
) -> None:
    def sizes(run: SnapshotRun, partition: None, products: Any) -> Any:
        found = products.frame(partition).group_by("brand", maintain_order=True)
        counted = found.agg(other=pl.lit(1), products=pl.len())
        return dg.MaterializeResult(value=counted, metadata={"a": 1}) if in_a_result else counted

    asset = snapshot_asset(snapshot_inputs(products=shop), kind=TableKind(SIZES))(sizes)
    assert asset.key == dg.AssetKey("sizes")
    assert asset.op.pool is None  # it asks the service for nothing
    shown = metadata(materialized([shop, asset], tmp_path), "sizes")
    assert ("a" in shown) is in_a_result
    stored = pl.read_parquet(tmp_path / "sizes.parquet")
    assert stored.schema == SIZES
    assert stored.rows() == [("Acme", 2), (None, 1)]


@pytest.mark.parametrize(
    ("returned", "text"),
    [
        (None, "returned None"),
        (dg.MaterializeResult(), "cannot be stored as a snapshot"),
        (pl.DataFrame({"brand": ["Acme"]}), "products"),
    ],
)
def test_what_cannot_be_stored_fails_the_run(tmp_path: Path, returned: Any, text: str) -> None:
    def sizes(run: SnapshotRun, partition: None) -> Any:
        return returned

    asset = snapshot_asset({}, NO_RETRY, kind=TableKind(SIZES))(sizes)
    result = materialized([asset], tmp_path, raise_on_error=False)
    assert text in failure(result)
    assert not (tmp_path / "sizes.parquet").exists()


def test_rows_that_are_products_are_shown_in_the_order_of_products(tmp_path: Path) -> None:
    figures = {"octogen/seconds": 1.0, "octogen/price_p50_eur": 2.0}

    def products(run: SnapshotRun, partition: None) -> dg.MaterializeResult[pl.DataFrame]:
        return dg.MaterializeResult(
            value=given_frame(day(1), [product("a", 2.0)]), metadata=figures
        )

    shown = metadata(materialized([snapshot_asset({}, NO_RETRY)(products)], tmp_path), "products")
    assert [name for name in shown if name in figures] == [*figures][::-1]


ANOTHER = pl.DataFrame({"brand": ["Acme"], "product": [1]})


@pytest.mark.parametrize(
    ("returned", "text"),
    [
        (ANOTHER, "sizes .*'products'.* 'product'"),
        (ANOTHER.lazy(), "sizes .*'products'.* 'product'"),
        (
            pl.DataFrame({"brand": ["Acme"], "products": ["many"]}),
            "sizes .*products",
        ),
    ],
)
def test_a_frame_that_does_not_fit_its_kind_is_not_retried(
    tmp_path: Path, returned: Any, text: str
) -> None:
    def sizes(run: SnapshotRun, partition: None) -> Any:
        return returned

    policy = {"retry_policy": dg.RetryPolicy(max_retries=1)}
    asset = snapshot_asset({}, policy, kind=TableKind(SIZES))(sizes)
    result = materialized([asset], tmp_path, raise_on_error=False)
    assert not is_retried(result)
    assert re.search(text, failure(result))


def shown_sizes(folder: Path, **kind: Any) -> dict[str, Any]:
    """What is shown of a table of a kind that has these parts or checks."""

    def sizes(run: SnapshotRun, partition: None) -> pl.DataFrame:
        return pl.DataFrame({"brand": ["Acme"], "products": [1]})

    asset = snapshot_asset({}, NO_RETRY, kind=TableKind(SIZES, **kind))(sizes)
    return metadata(materialized([asset], folder), "sizes")


@pytest.mark.parametrize(
    ("part", "shown"),
    [
        (datetime(2026, 11, 25, 6, tzinfo=UTC), 1_795_586_400.0),
        (datetime(2026, 11, 25, 6), "2026-11-25 06:00:00"),
        (date(2026, 11, 25), "2026-11-25"),
        (Decimal("1.5"), 1.5),
        ({"a": 1}, {"a": 1}),
        ([1], [1]),
        (Markdown("**b**"), "**b**"),
    ],
)
def test_a_part_returns_a_figure_a_time_or_a_text(tmp_path: Path, part: Any, shown: Any) -> None:
    found = shown_sizes(tmp_path, parts={"newest": lambda _: {"newest": part}})
    assert found["octogen/newest"] == shown


@pytest.mark.parametrize("part", [(1, 2), {"a": date(2026, 11, 25)}, object()])
def test_a_part_that_dagster_cannot_show_is_left_out(
    tmp_path: Path, part: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    found = shown_sizes(tmp_path, parts={"newest": lambda _: {"newest": part}})
    assert "octogen/newest" not in found
    assert found["octogen/summary"] == "**1 row**"
    assert "Could not add the newest to the metadata" in capfd.readouterr().err


def test_a_part_of_any_name_is_shown_beside_the_others(tmp_path: Path) -> None:
    names = ["columns", "preview", "prices", "summary", "other metrics", "trend over snapshots"]
    parts = {name: lambda _, at=place: {f"own_{at}": at} for place, name in enumerate(names)}
    found, without = shown_sizes(tmp_path, parts=parts), shown_sizes(tmp_path / "without")
    own = {f"octogen/own_{place}" for place in range(len(names))}
    assert found.keys() == without.keys() | own


def test_a_verdict_has_texts_and_times(tmp_path: Path) -> None:
    figures = {
        "text": Markdown("**b**"),
        "at": datetime(2026, 11, 25, 6, tzinfo=UTC),
        "table": pl.DataFrame({"a": [1]}),
    }
    check = Check("It is.", judge=lambda subject, _: Verdict(True, subject, figures))

    def sizes(run: SnapshotRun, partition: None) -> pl.DataFrame:
        return pl.DataFrame({"brand": ["Acme"], "products": [1]})

    asset = snapshot_asset({}, kind=TableKind(SIZES, checks={"is": check}))(sizes)
    result = materialized([asset, *build_snapshot_checks(asset, max_age=None)], tmp_path)
    (found,) = result.get_asset_check_evaluations()
    assert found.metadata == {
        "octogen/text": dg.MetadataValue.md("**b**"),
        "octogen/at": dg.MetadataValue.timestamp(1_795_586_400.0),
        "octogen/table": dg.MetadataValue.md("| a |\n| --- |\n| 1 |"),
    }


def test_a_function_judges_what_the_last_materialization_says(tmp_path: Path) -> None:
    def few(subject: str, entries: Any) -> Verdict:
        found = entries["octogen/brands"]
        return Verdict(found < 2, f"{subject} has {found} brands.", {"brands": found})

    kind = TableKind(SIZES, checks={"few_brands": Check("It has few.", "Look at it.", few)})

    def sizes(run: SnapshotRun, partition: None) -> Any:
        frame = pl.DataFrame({"brand": ["Acme", "Zen"], "products": [1, 2]})
        return dg.MaterializeResult(value=frame, metadata={"octogen/brands": len(frame)})

    asset = snapshot_asset({}, kind=kind)(sizes)
    result = materialized([asset, *build_snapshot_checks(asset, max_age=None)], tmp_path)
    (found,) = result.get_asset_check_evaluations()
    assert (found.check_name, found.passed) == ("few_brands", False)
    assert found.description == "sizes has 2 brands. Look at it."


def versions(folder: Path, *frames: pl.DataFrame, kind: TableKind = PLAIN) -> list[str]:
    """The data versions of snapshots of a table of one's own that follow each other."""
    left = list(frames)

    def mine(run: SnapshotRun, partition: None) -> pl.DataFrame:
        return left.pop(0)

    asset, found = snapshot_asset({}, NO_RETRY, kind=kind)(mine), []
    with dg.DagsterInstance.ephemeral() as instance:
        for _ in frames:
            result = materialized([asset], folder, instance=instance)
            (event,) = result.asset_materializations_for_node("mine")
            found.append((event.tags or {})["dagster/data_version"])
    return found


NAMES = ["fetched_at", "exported_at", "raw_score", "display_match_score", "images"]


@pytest.mark.parametrize("name", NAMES)
def test_a_column_of_any_name_changes_the_data_version(tmp_path: Path, name: str) -> None:
    one, other = (pl.DataFrame({"sku": [1], name: [value]}) for value in (1.0, 2.0))
    first, again, changed = versions(tmp_path, one, one, other)
    assert first == again != changed


def test_a_volatile_column_keeps_the_data_version(tmp_path: Path) -> None:
    frames = [pl.DataFrame({"sku": [sku], "at": [at]}) for sku, at in ((1, 1), (1, 2), (2, 2))]
    first, again, changed = versions(tmp_path, *frames, kind=TableKind(volatile=("at",)))
    assert first == again != changed


CATEGORIES = """
import sys
from pathlib import Path
import polars as pl
from tests.promises.tables.test_own_tables import versions

_, folder, color = sys.argv
category = pl.Categorical()
for dtype, value in [
    (category, color),
    (pl.List(category), [color]),
    (pl.List(pl.List(category)), [[color]]),
    (pl.Array(category, 1), [color]),
    (pl.List(pl.Struct({"name": category})), [{"name": color}]),
    (
        pl.Struct({"names": pl.Array(pl.Struct({"name": category}), 1)}),
        {"names": [{"name": color}]},
    ),
]:
    print(*versions(Path(folder), pl.DataFrame({"color": [value]}, schema={"color": dtype})))
"""


@pytest.mark.long
def test_a_category_changes_the_data_version_at_any_depth_and_in_any_process(
    tmp_path: Path,
) -> None:
    """A process numbers categories as it meets them, so each one is the first of its process."""
    red, hot, again = (
        subprocess.run(
            [sys.executable, "-c", CATEGORIES, str(tmp_path / str(place)), color],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.splitlines()
        for place, color in enumerate(["red", "hot", "red"])
    )
    assert len(red) == 6
    assert red == again
    assert not set(red) & set(hot)


def test_rows_that_accumulate_are_kept_with_the_time_of_their_snapshot(tmp_path: Path) -> None:
    def sizes(run: SnapshotRun, partition: None) -> Any:
        return pl.DataFrame({"brand": ["Acme"], "products": [1]})

    asset = snapshot_asset({}, NO_RETRY, kind=TableKind(SIZES, accumulates=True))(sizes)
    destination = DuckDBTables(database=str(tmp_path / "tables.duckdb"))
    table = build_table_asset(asset, destination)
    for _ in range(2):
        materialized([asset, table], tmp_path)
    with duckdb.connect(destination.database) as connection:
        counted = "select count(*), count(distinct fetched_at) from octogen.sizes"
        assert connection.execute(counted).fetchone() == (2, 2)
